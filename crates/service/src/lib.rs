//! the life of a task: read, process, commit; dead letters, restarts, scaling
