//! Switches `src/sync.rs` over, for this package alone: no environment variable, and dependencies are left as they are.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(ringfence_loom, ringfence_shuttle, docsrs)");
    println!("cargo::rustc-cfg=ringfence_loom");
}
