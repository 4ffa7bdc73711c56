//! A disk without room. It takes root to make one; without, these tests say so and end.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

use super::sandbox::Sandbox;

/// A disk of so many megabytes, or nothing where this user may not mount one.
struct Disk(PathBuf);

impl Disk {
    fn of(megabytes: u32) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            let _ = writeln!(std::io::stderr(), "skipped, only root may mount a disk");
            return None;
        }
        let folder = tempfile::tempdir().unwrap().keep();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder)
            .status()
            .unwrap();
        if !mounted.success() {
            std::fs::remove_dir(&folder).unwrap();
            let _ = writeln!(std::io::stderr(), "skipped, no disk can be mounted here");
            return None;
        }
        let everybody = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(&folder, everybody).unwrap();
        Some(Self(folder))
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// 100 MB, and far from done.
const SEED: &str = "create table t as select repeat('x', 1000) a from generate_series(1, 100000)";

#[rstest]
#[case::before_the_server_starts(5)]
#[case::while_a_seed_is_loaded(60)]
fn a_full_disk_is_said_plainly(#[case] megabytes: u32) {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::of(megabytes) else {
        return;
    };
    let seed = sandbox.cache.path().join("seed.sql");
    std::fs::write(&seed, SEED).unwrap();
    let output = sandbox
        .command(env!("CARGO_BIN_EXE_postern"))
        .args(["db", "--seed"])
        .arg(&seed)
        .args(["--", "true"])
        .current_dir(Path::new("/"))
        .env("POSTERN_DATA", &disk.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    let help = format!("the disk of {}/postern-shared-", disk.0.display());
    assert!(told.contains(&help), "{told}");
    assert!(told.contains("is full"), "{told}");
    while !disk.is_empty() {
        std::thread::yield_now();
    }
}
