//! A cache of one's own, and with it servers that no other test finds.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "POSTERN_TEST_DB";

/// What this process is to do, if a test started it.
pub(super) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

pub(super) struct Sandbox {
    pub(super) cache: tempfile::TempDir,
}

impl Sandbox {
    pub(super) fn new() -> Self {
        let cache = tempfile::tempdir().unwrap();
        // Clusters are made once for all tests: their making is tested elsewhere.
        let clusters = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clusters");
        std::fs::create_dir_all(&clusters).unwrap();
        std::os::unix::fs::symlink(clusters, cache.path().join("clusters")).unwrap();
        Self { cache }
    }

    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("POSTERN_CACHE", self.cache.path())
            .env("POSTERN_LINGER", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// This test binary in a role.
    pub(super) fn role(&self, role: &str) -> Command {
        let mut command = self.command(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "db::a_process_that_uses_databases",
                "--nocapture",
            ])
            .env(ROLE, role);
        command
    }

    /// The same, started.
    pub(super) fn child(&self, role: &str) -> Running {
        Running(self.role(role).spawn().unwrap())
    }

    /// Runs the command to its good end.
    #[track_caller]
    pub(super) fn postern(&self, arguments: &[&str]) -> String {
        let output = self
            .command(env!("CARGO_BIN_EXE_postern"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The folders of servers that were started here.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        [Path::new("/dev/shm"), &std::env::temp_dir()]
            .into_iter()
            .filter_map(|base| std::fs::read_dir(base).ok())
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| {
                std::fs::read_to_string(path.join("cache"))
                    .is_ok_and(|cache| Path::new(&cache) == self.cache.path())
            })
            .collect()
    }

    /// Waits until no server is left; they end by themselves.
    #[track_caller]
    pub(super) fn assert_goes(&self) {
        let begun = Instant::now();
        while !self.folders().is_empty() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "still there: {:?}",
                self.folders()
            );
            std::thread::yield_now();
        }
    }
}

/// A child process.
pub(super) struct Running(pub(super) Child);

impl Running {
    pub(super) fn output(self) -> Output {
        self.0.wait_with_output().unwrap()
    }

    /// Waits until it tells something; what it printed so far is gone.
    #[track_caller]
    pub(super) fn tells(&mut self) {
        let output = self.0.stdout.as_mut().unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\ntold") {
            let mut byte = [0];
            output.read_exact(&mut byte).expect("it tells something");
            text.push(byte[0]);
        }
    }

    /// What it told at its good end.
    #[track_caller]
    pub(super) fn told(self) -> String {
        let output = self.output();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("told "))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    }
}
