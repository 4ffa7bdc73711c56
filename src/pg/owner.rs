//! Who made a throwaway thing, and whether that process still lives.
//!
//! Folders, containers and databases carry their owner, so that a later run can remove what a
//! killed one left behind and never touches what a living one still uses. In doubt an owner
//! lives.

use std::fmt;
use std::sync::OnceLock;

/// A process on a machine, told apart from a later one that got the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The host's name, for people.
    host: String,
    /// A hash of the host's name and machine id; the machine id itself is nobody's business.
    machine: String,
    /// Whether the machine id was known: without one, equal names may be different machines.
    is_machine_known: bool,
    /// Changes with every start of the machine; empty where the system does not tell.
    boot: String,
    /// The space in which process numbers count: each container has its own.
    space: String,
    pid: u32,
    /// When the process started, in the system's own units; 0 where the system does not tell.
    start: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<Owner> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let host = host_name();
            let machine_id = read("/etc/machine-id");
            let pid = std::process::id();
            Self {
                machine: hash(&format!("{host}\n{machine_id}")),
                is_machine_known: !machine_id.is_empty(),
                host,
                boot: hash_unless_empty(&read("/proc/sys/kernel/random/boot_id")),
                space: std::fs::read_link("/proc/self/ns/pid")
                    .map(|link| hash_unless_empty(&link.to_string_lossy()))
                    .unwrap_or_default(),
                pid,
                start: start_of(pid).unwrap_or(0),
            }
        })
    }

    /// Reads what `Display` wrote, alone or at the end of a longer text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let machine = field("machine")?;
        Some(Self {
            host: field("host")?.to_owned(),
            machine: machine.trim_end_matches('?').to_owned(),
            is_machine_known: !machine.ends_with('?'),
            boot: field("boot")?.to_owned(),
            space: field("space")?.to_owned(),
            pid: field("pid")?.parse().ok()?,
            start: field("start")?.parse().ok()?,
        })
    }

    /// This owner in few plain characters, for names.
    pub(crate) fn tag(&self) -> String {
        let boot = &hash(&self.boot)[..4];
        format!(
            "{}{boot}p{:x}s{:x}",
            self.tag_of_machine(),
            self.pid,
            self.start
        )
    }

    fn tag_of_machine(&self) -> String {
        hash(&format!("{}\n{}", self.machine, self.space))[..8].to_owned()
    }

    /// Whether a tag is that of a process which has certainly ended; not where the tag does not
    /// tell enough.
    pub(crate) fn is_tag_gone(tag: &str) -> bool {
        let here = Self::current();
        let own = here.tag_of_machine();
        let parts = || {
            let rest = tag.strip_prefix(&*own)?;
            let (boot, process) = rest.split_once('p')?;
            let (pid, start) = process.split_once('s')?;
            let pid = u32::from_str_radix(pid, 16).ok()?;
            Some((boot, pid, u64::from_str_radix(start, 16).ok()?))
        };
        let Some((boot, pid, start)) = parts() else {
            return false;
        };
        if boot != &hash(&here.boot)[..4] {
            return here.is_machine_known && !here.boot.is_empty();
        }
        !is_running(pid, start)
    }

    /// Whether that process has certainly ended: it ran on this machine and is no more.
    pub(crate) fn is_gone(&self) -> bool {
        let here = Self::current();
        if self.machine != here.machine {
            return false;
        }
        if self.boot != here.boot {
            return self.is_machine_known && !self.boot.is_empty() && !here.boot.is_empty();
        }
        self.space == here.space && !is_running(self.pid, self.start)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unsure = if self.is_machine_known { "" } else { "?" };
        write!(
            f,
            "host={} machine={}{unsure} boot={} space={} pid={} start={}",
            self.host, self.machine, self.boot, self.space, self.pid, self.start
        )
    }
}

/// A name for this machine, the same in every process.
pub(crate) fn machine() -> &'static str {
    &Owner::current().machine
}

/// 16 hexadecimal digits that nobody can foresee.
///
/// The standard library seeds its hash maps with 128 bits from the operating system; hashing
/// nothing under such a key is as unpredictable as the key.
pub(crate) fn random_hex() -> String {
    use std::hash::{BuildHasher, Hasher};
    let state = std::collections::hash_map::RandomState::new();
    format!("{:016x}", state.build_hasher().finish())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn hash_unless_empty(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        hash(text)
    }
}

/// FNV-1a: the same in every build, which the standard library's hasher does not promise.
fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn host_name() -> String {
    #[cfg(unix)]
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").ok();
    name.unwrap_or_default()
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => c,
            _ => '-',
        })
        .collect()
}

/// When a process started, where the system tells: field 22 of Linux' `/proc/PID/stat`.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(unix)]
fn is_running(pid: u32, start: u64) -> bool {
    use nix::errno::Errno;
    let Ok(raw) = i32::try_from(pid) else {
        return false;
    };
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(raw), None) {
        Err(Errno::ESRCH) => false,
        _ => start == 0 || start_of(pid).is_none_or(|now| now == start),
    }
}

#[cfg(not(unix))]
fn is_running(_pid: u32, _start: u64) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_survives_being_written_down() {
        let owner = Owner::current();
        let text = format!("postern throwaway {owner}");
        assert_eq!(Owner::parse(&text).as_ref(), Some(owner));
        assert_eq!(Owner::parse("host=x pid=1"), None);
    }

    #[test]
    fn a_tag_tells_whether_its_process_is_gone() {
        let mut owner = Owner::current().clone();
        assert!(!Owner::is_tag_gone(&owner.tag()));
        owner.pid = i32::MAX as u32 - 1;
        assert!(Owner::is_tag_gone(&owner.tag()));
        owner.machine = "another".into();
        assert!(!Owner::is_tag_gone(&owner.tag()));
        assert!(!Owner::is_tag_gone("my_own_database"));
    }

    #[test]
    fn this_process_is_not_gone() {
        assert!(!Owner::current().is_gone());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_with_another_start_is_another_process() {
        let mut owner = Owner::current().clone();
        owner.start += 1;
        assert!(owner.is_gone());
    }

    #[test]
    fn an_owner_elsewhere_is_never_called_gone() {
        let mut owner = Owner::current().clone();
        owner.pid = u32::MAX;
        owner.machine = hash("elsewhere");
        assert!(!owner.is_gone());
        let mut owner = Owner::current().clone();
        owner.pid = u32::MAX;
        owner.space = hash("a container");
        assert!(!owner.is_gone());
    }

    #[test]
    fn after_a_restart_only_a_known_machine_is_trusted_to_be_the_same() {
        let mut owner = Owner::current().clone();
        owner.boot = hash("before");
        owner.is_machine_known = false;
        assert!(!owner.is_gone());
    }

    #[test]
    fn random_texts_differ() {
        assert_ne!(random_hex(), random_hex());
        assert_eq!(random_hex().len(), 16);
    }
}
