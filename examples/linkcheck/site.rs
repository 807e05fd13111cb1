//! The site to check when none is named: some real documentation, without a network.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// Crates that are here anyway, as dependencies, and have thousands of pages between them.
const CRATES: [&str; 4] = ["futures-util", "hyper", "libc", "tokio"];

/// Finds the documentation that comes with the Rust toolchain, or builds some.
pub(crate) async fn default_site() -> anyhow::Result<PathBuf> {
    match toolchain_docs().await {
        Some(folder) => Ok(folder),
        None => build_docs().await,
    }
}

async fn toolchain_docs() -> Option<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .await
        .ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    let folder = Path::new(sysroot.trim()).join("share/doc/rust/html");
    folder.join("index.html").is_file().then_some(folder)
}

/// The second time, cargo sees that all is there.
async fn build_docs() -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = project.join("target/linkcheck");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // `--examples`, because cargo knows nothing of dev-dependencies otherwise.
    command
        .args(["doc", "--no-deps", "--lib", "--examples", "--manifest-path"])
        .arg(project.join("Cargo.toml"));
    command.arg("--target-dir").arg(&target);
    for name in CRATES {
        command.args(["--package", name]);
    }
    let status = command
        .kill_on_drop(true)
        .status()
        .await
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "`cargo doc` failed ({status}); name a folder with HTML files instead"
    );

    // cargo makes no page that leads to all crates.
    let folder = target.join("doc");
    let links = CRATES.map(|name| {
        format!(
            "<li><a href='{0}/index.html'>{0}</a>\n",
            name.replace('-', "_")
        )
    });
    let index = format!(
        "<!DOCTYPE html>\n<title>Crates</title>\n<ul>\n{}</ul>\n",
        links.concat()
    );
    tokio::fs::write(folder.join("index.html"), index).await?;
    Ok(folder)
}
