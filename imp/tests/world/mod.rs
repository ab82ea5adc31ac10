//! A machine for one test: mounts of its own with users, configuration, PAM stack, a munged, and a setuid flux-imp.
//!
//! `FLUX_IMP_UNDER_TEST` names another flux-imp (the original's, say), `FLUX_IMP_SYSCONFDIR` the directory that it has compiled in.

pub mod sys;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flux_sign::munge::{connect, encode};
use flux_sign::{Config, Mechanism, Signer};
use sha2::{Digest, Sha256};

/// The instance owner, two guests, and a user who is in no file.
pub const OWNER: u32 = 7001;
pub const ALI: u32 = 7002;
pub const BOB: u32 = 7003;
pub const NOBODY: u32 = 7999;
pub const IMP: &str = "/mnt/flux-imp";
pub const SHELL: &str = "/mnt/shell";
/// A directory of the owner's.
pub const HOME: &str = "/mnt/home";
pub const DEADLINE: Duration = Duration::from_secs(60);
/// After this another flux-imp counts as hanging, which is noted.
const FOREIGN_DEADLINE: Duration = Duration::from_secs(15);

pub const SHELL_C: &str = r#"
#include <stdlib.h>
#include <unistd.h>
int main (int argc, char **argv)
{
    (void)argc;
    setenv ("PROBE", argv[1] ? argv[1] : "", 1);
    if (access ("/mnt/.script", R_OK) == 0)
        execl ("/bin/sh", "sh", "/mnt/.script", argv[2], (char *)0);
    execl ("/bin/sh", "sh", "-s", argv[2], (char *)0);
    return 99;
}
"#;

/// Notes a case that this machine cannot do.
pub fn skip(lacks: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED {test}: this machine lacks {lacks}");
    if let Some(path) = std::env::var_os("FLUX_TEST_SKIPPED") {
        let mut list = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        writeln!(list, "{lacks} imp::{test}").unwrap();
    }
}

/// Notes what another flux-imp does differently, on standard error and in the file `FLUX_IMP_DIFFERENCES`; the case goes on.
#[track_caller]
fn differs(what: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let line = std::panic::Location::caller().line();
    let text = format!("{test} line {line}: {what}");
    eprintln!("DIFFERS {text}");
    if let Some(path) = std::env::var_os("FLUX_IMP_DIFFERENCES") {
        let mut options = fs::OpenOptions::new();
        let mut list = options.create(true).append(true).open(path).unwrap();
        writeln!(list, "{text}").unwrap();
    }
}

/// True when another flux-imp is tested: texts are not compared then, and what it does differently is noted.
pub fn is_foreign() -> bool {
    std::env::var_os("FLUX_IMP_UNDER_TEST").is_some()
}

pub fn binary() -> PathBuf {
    std::env::var_os("FLUX_IMP_UNDER_TEST")
        .or(std::env::var_os("FLUX_IMP_RELEASE"))
        .map_or(PathBuf::from(env!("CARGO_BIN_EXE_flux-imp")), PathBuf::from)
}

pub fn sysconfdir() -> String {
    std::env::var("FLUX_IMP_SYSCONFDIR").unwrap_or("/usr/local/etc".to_owned())
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The job ran to its end.
    #[track_caller]
    pub fn ran(&self) -> &Self {
        if is_foreign() {
            if self.code != Some(0) || !self.stdout.contains("RAN") {
                differs(&format!("does not run: {self:?}"));
            }
            return self;
        }
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.stdout.contains("RAN"), "{self:?}");
        self
    }

    /// Nothing ran; one plain line says why.
    #[track_caller]
    pub fn refused(&self, why: &str) -> &Self {
        if is_foreign() {
            if self.code == Some(0) || self.signal.is_some() || self.stdout.contains("RAN") {
                differs(&format!("is not refused ({why}): {self:?}"));
            }
            return self;
        }
        assert_ne!(self.code, Some(0), "{self:?}");
        assert!(self.signal.is_none(), "{self:?}");
        assert!(!self.stdout.contains("RAN"), "{self:?}");
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.contains("Warning: "))
            .collect();
        assert_eq!(lines.len(), 1, "{self:?}");
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        assert!(
            lines[0].starts_with("flux-imp: Fatal: ") && lines[0].chars().all(plain),
            "{self:?}"
        );
        assert!(lines[0].contains(why), "{why:?} is not in {self:?}");
        self
    }
}

pub struct World {
    /// Id of its jobs, which no other world has.
    pub id: String,
    munged: Option<Child>,
    work: PathBuf,
}

impl World {
    /// Makes the machine; `None`, counted, where this one does not allow it.
    pub fn new() -> Option<Self> {
        let own = fs::metadata("/proc/self").unwrap();
        if std::os::unix::fs::MetadataExt::uid(&own) != 0 {
            skip("root");
            return None;
        }
        if sys::unshare_mounts().is_err() {
            skip("mount");
            return None;
        }
        if !Path::new("/usr/sbin/munged").exists() {
            skip("munged");
            return None;
        }
        let image = binary();
        let image = fs::read(&image).unwrap_or_else(|err| panic!("{}: {err}", image.display()));
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let groups = fs::read_to_string("/etc/group").unwrap();
        let services: Vec<_> = fs::read_dir("/etc/pam.d")
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        let services: Vec<_> = services
            .iter()
            .map(|e| (e.file_name(), fs::read(e.path()).unwrap()))
            .collect();
        sys::tmpfs("/mnt");
        fs::create_dir_all(sysconfdir()).unwrap();
        sys::tmpfs(&sysconfdir());
        sys::tmpfs("/var/lib");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let world = World {
            id: format!("{}{count:03}", std::process::id()),
            munged: None,
            work: PathBuf::from("/mnt"),
        };
        let extra = format!(
            "own:x:{OWNER}:{OWNER}::/mnt/home:/bin/false\nali:x:{ALI}:{ALI}::/home/ali:/bin/sh\nbob:x:{BOB}:{BOB}::/home/bob:/bin/sh\n"
        );
        world.put("passwd", &(users + &extra), 0o644);
        let extra = format!("own:x:{OWNER}:\nali:x:{ALI}:\nbob:x:{BOB}:\nteam:x:7010:ali\n");
        world.put("group", &(groups + &extra), 0o644);
        sys::bind("/mnt/passwd", "/etc/passwd");
        sys::bind("/mnt/group", "/etc/group");
        if Path::new("/etc/pam.d").exists() {
            sys::tmpfs("/etc/pam.d");
            for (name, text) in services {
                fs::write(Path::new("/etc/pam.d").join(name), text).unwrap();
            }
        }
        world.put("flux-imp", image, 0o4755);
        world.compile("shell", SHELL_C, &[]);
        fs::create_dir(HOME).unwrap();
        chown(HOME, Some(OWNER), Some(OWNER)).unwrap();
        for space in ["imp", "security"] {
            fs::create_dir_all(format!("{}/flux/{space}/conf.d", sysconfdir())).unwrap();
        }
        world.exec_config("");
        world.sign_config("/mnt/munge/socket", 1000, "");
        let mut world = world;
        world.start_munged();
        Some(world)
    }

    /// Writes a file of root's below `/mnt`.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> String {
        let path = self.work.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Compiles C to `/mnt/NAME`.
    pub fn compile(&self, name: &str, source: &str, options: &[&str]) -> String {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let hash: String = Sha256::digest(source.as_bytes())
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        let built = cache.join(format!("{name}-{hash}"));
        if !built.exists() {
            let text = cache.join(format!("{name}-{hash}-{}.c", std::process::id()));
            let fresh = cache.join(format!("{name}-{hash}-{:?}", std::thread::current().id()));
            fs::write(&text, source).unwrap();
            let mut cc = Command::new("cc");
            cc.arg("-o").arg(&fresh).arg(&text).args(options);
            assert!(cc.status().unwrap().success());
            fs::rename(&fresh, &built).unwrap();
        }
        let path = self.work.join(name);
        fs::copy(&built, &path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn imp_file(&self) -> String {
        format!("{}/flux/imp/conf.d/imp.toml", sysconfdir())
    }

    /// `[exec]` with usual users and shell, and more keys.
    pub fn exec_config(&self, more: &str) {
        let text = format!("[exec]\nallowed-users = [\"own\"]\nallowed-shells = [\"{SHELL}\"]\n{more}\n");
        self.imp_config(&text);
    }

    pub fn imp_config(&self, text: impl AsRef<[u8]>) {
        drop(fs::remove_file(self.imp_file()));
        fs::write(self.imp_file(), text).unwrap();
    }

    pub fn sign_config(&self, socket: &str, ttl: i64, more: &str) {
        let text = format!(
            "[sign]\nmax-ttl = {ttl}\ndefault-type = \"munge\"\nallowed-types = [\"none\", \"munge\"]\n[sign.munge]\nsocket-path = \"{socket}\"\n{more}\n"
        );
        fs::write(format!("{}/flux/security/conf.d/sign.toml", sysconfdir()), text).unwrap();
    }

    fn start_munged(&mut self) {
        fs::create_dir("/mnt/munge").unwrap();
        let key: Vec<u8> = (0..128u8).map(|byte| byte.wrapping_mul(37) ^ 0x5a).collect();
        self.put("munge/key", key, 0o600);
        let options = [
            "socket",
            "key-file=key",
            "log-file=log",
            "pid-file=pid",
            "seed-file=seed",
        ];
        let options = options.map(|option| match option.split_once('=') {
            Some((name, file)) => format!("--{name}=/mnt/munge/{file}"),
            None => "--socket=/mnt/munge/socket".to_owned(),
        });
        let child = Command::new("/usr/sbin/munged")
            .args(["--foreground", "--force", "--num-threads=1"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.munged = Some(child.unwrap());
        wait_for("munged", || {
            encode(Path::new("/mnt/munge/socket"), connect, b"x").is_ok()
        });
    }

    pub fn stop_munged(&mut self) {
        if let Some(mut munged) = self.munged.take() {
            munged.kill().unwrap();
            munged.wait().unwrap();
        }
    }

    /// Signs as a user, with the header's keys of ours.
    pub fn token(&self, uid: u32) -> String {
        self.token_for(uid, uid, None)
    }

    /// Signs as `uid`, saying that it is `says`.
    pub fn token_for(&self, uid: u32, says: u32, cluster: Option<&str>) -> String {
        let signer = Signer::new(Config {
            max_ttl: 1000,
            default_type: Mechanism::Munge,
            allowed_types: vec![Mechanism::Munge],
            munge_socket: Some(PathBuf::from("/mnt/munge/socket")),
            cluster: cluster.map(str::to_owned),
        });
        sys::as_user(uid, || signer.wrap(b"{\"version\":1}", None, says)).unwrap()
    }

    /// Signs any header text as a user; `digest` makes what MUNGE covers out of `HEADER.PAYLOAD`.
    pub fn raw_token(&self, uid: u32, header: &[u8], digest: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let mut signed = String::new();
        flux_sign::base64_encode(header, &mut signed);
        signed.push('.');
        flux_sign::base64_encode(b"{}", &mut signed);
        let covered = digest(signed.as_bytes());
        let socket = Path::new("/mnt/munge/socket");
        let credential = sys::as_user(uid, || encode(socket, connect, &covered)).unwrap();
        format!("{signed}.{credential}")
    }

    /// Puts `{"J": TOKEN}` and a script for the shell into a file that the owner may read.
    pub fn input(&self, token: &str, script: &str) -> String {
        self.document(&format!("{{\"J\":\"{token}\"}}"), script)
    }

    /// Another flux-imp may take all of its input for the document: then the script is in a file beside it.
    pub fn document(&self, document: &str, script: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let (name, script) = (format!("in{count}"), format!("{script}\necho RAN\n"));
        if is_foreign() {
            self.put(".script", &script, 0o644);
            self.put(&format!("{name}.script"), script, 0o644);
            return self.put(&name, document, 0o644);
        }
        self.put(&name, format!("{document}\n{script}"), 0o644)
    }

    /// Returns `flux-imp exec SHELL ID` of the owner's with the input file.
    pub fn exec(&self, input: &str) -> Command {
        // none beside files that are no documents
        if let (true, Ok(script)) = (is_foreign(), fs::read(format!("{input}.script"))) {
            self.put(".script", script, 0o644);
        }
        let mut command = self.imp(&["exec", SHELL, &self.id]);
        command.stdin(fs::File::open(input).unwrap());
        command
    }

    /// Returns a call of the owner's.
    pub fn imp(&self, words: &[&str]) -> Command {
        let mut command = Command::new(IMP);
        command
            .args(words)
            .uid(OWNER)
            .gid(OWNER)
            .env_clear()
            .stdin(Stdio::null())
            .current_dir("/");
        command
    }

    /// Runs the owner's `exec` of a token, with a script.
    pub fn try_exec(&self, token: &str, script: &str) -> Output {
        self.run(&mut self.exec(&self.input(token, script)))
    }

    /// Runs a command to its end, and checks that nothing is left of the job.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Output {
        let output = run_within(command, DEADLINE);
        self.nothing_is_left();
        output
    }

    #[track_caller]
    pub fn nothing_is_left(&self) {
        let begun = Instant::now();
        let left = || [processes_in(self), self.cgroups()].concat();
        while !left().is_empty() {
            let first = || left().into_iter().take(9).collect::<Vec<_>>();
            if is_foreign() && begun.elapsed() >= Duration::from_secs(1) {
                differs(&format!("is left: {:?}", first()));
                return kill_all_in(self);
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "left: {:?}", first());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Groups of this world's jobs.
    pub fn cgroups(&self) -> Vec<String> {
        let prefix = format!("flux-imp-{}-", self.id);
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter();
        let entries = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path().display().to_string())
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // After a failure; they are in no other mounts than ours.
        kill_all_in(self);
        self.stop_munged();
    }
}

fn kill_all_in(world: &World) {
    for process in processes_in(world) {
        let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
        pid.into_iter().for_each(|pid| sys::kill(pid, libc::SIGKILL));
    }
}

fn mounts_of(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// Processes of flux-imp, its shell, or a guest in this world's mounts.
pub fn processes_in(_world: &World) -> Vec<String> {
    let own = mounts_of("thread-self");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || mounts_of(&pid) != own {
            continue;
        }
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let guest = field("Uid:")
            .split_whitespace()
            .any(|uid| uid == ALI.to_string() || uid == BOB.to_string());
        let command = field("Name:");
        if field("State:").starts_with('Z') || (!guest && command != "flux-imp") {
            continue;
        }
        found.push(format!("{pid} {command} {}", field("Uid:")));
    }
    found
}

/// Runs a command; what hangs is killed and fails the test.
#[track_caller]
pub fn run_within(command: &mut Command, time: Duration) -> Output {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = |what: &str| {
        let thread = format!("{:?}", std::thread::current().id());
        directory.join(format!("{what}-{}-{thread}", std::process::id()))
    };
    let (out, err) = (name("out"), name("err"));
    let mut child = command
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let output = finish(&mut child, time);
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let output = Output {
        stdout: read(&out),
        stderr: read(&err),
        ..output
    };
    fs::remove_file(&out).unwrap();
    fs::remove_file(&err).unwrap();
    output
}

/// Waits for a child.
#[track_caller]
pub fn finish(child: &mut Child, time: Duration) -> Output {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if is_foreign() && begun.elapsed() > FOREIGN_DEADLINE {
            differs("hangs");
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        if begun.elapsed() > time {
            child.kill().unwrap();
            panic!("it hangs");
        }
        std::thread::park_timeout(Duration::from_millis(1));
    };
    Output {
        code: status.code(),
        signal: status.signal(),
        stdout: String::new(),
        stderr: String::new(),
    }
}
