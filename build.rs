//! Builds this package again when the console was built or removed.
//!
//! The directory is made when it is missing: cargo would take a path that is not there for one that has just changed,
//! and build everything again each time. The console's own build needs Node and is `make web`.

use std::path::Path;

fn main() {
    let console = Path::new("web/dist");
    // On a read-only checkout this fails, and nothing is lost: the server then says how to build the console.
    if !console.exists() {
        drop(std::fs::create_dir_all(console));
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=web/dist");
}
