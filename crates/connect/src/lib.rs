//! sources, sinks and lookups that touch the outside
