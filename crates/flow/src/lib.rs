//! SQL to streaming operators; pure
