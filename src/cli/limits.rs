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

/// Keeps huge pages out of this process where the system offers them. The allocator asks for them, and the system then
/// fills up with whole ones of 2 MiB again what was given back in pieces: under the load of `plinth bench --only publish`
/// a node held up to 1.7 GB, without them less than 500 MB.
pub(super) fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        super::output::say(&format!("huge pages cannot be turned off: {error}"));
    }
}
