//! The process's limits of the system.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to the most that this process may have: each connection is one, and the usual soft
/// limit of 1,024 is meant for programs that use `select`.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        super::output::say(&format!("the limit of open files stays at {:?}: {error}", limit.current));
    }
}
