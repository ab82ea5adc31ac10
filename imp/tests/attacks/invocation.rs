//! Cases 1 to 18: how it is called, and with what environment.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::world::sys::{Before, before_exec, mount};
use crate::world::*;

#[test]
fn case_001_no_arguments_at_all() {
    let Some(world) = World::new() else { return };
    let mut command = world.imp(&[]);
    before_exec(&mut command, Before::NoArguments);
    world.run(&mut command).refused("command required");
    world.run(&mut world.imp(&[])).refused("command required");
}

#[test]
fn case_002_names_of_any_kind() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    for name in [
        "a\nflux-imp: forged".to_owned(),
        "\u{1b}[2J".to_owned(),
        String::new(),
        "x".repeat(100_000),
    ] {
        world.run(world.exec(&input).arg0(&name)).ran();
        let mut bad = world.imp(&["nonsense\n\u{1b}[2J"]);
        world
            .run(bad.arg0(&name))
            .refused("Unknown IMP command: nonsense\\n\\u{1b}[2J");
    }
}

#[test]
fn case_003_a_huge_environment() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "env | wc -l");
    let mut command = world.exec(&input);
    command.envs((0..60_000).map(|n| (format!("V{n}"), "x")));
    assert!(
        world
            .run(&mut command)
            .ran()
            .stdout
            .lines()
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
            < 12
    );
    let mut command = world.exec(&input);
    world.run(command.env("BIG", "x".repeat(120_000))).ran();
}

#[test]
fn case_004_commands_that_are_none() {
    let Some(world) = World::new() else { return };
    for (words, why) in [
        (vec!["kill", "9", "1"], "Unknown IMP command: kill"),
        (vec!["exec"], "missing arguments"),
        (vec!["exec", SHELL], "missing arguments"),
        (vec!["exec", "exec", SHELL, "1"], "too many arguments"),
        (vec!["exec", SHELL, "1", "2"], "too many arguments"),
        (vec!["run"], "run: exactly one name"),
        (vec!["run", "a", "b"], "run: exactly one name"),
        (vec!["exec\0"; 0], "command required"),
        (vec!["EXEC", SHELL, "1"], "Unknown IMP command: EXEC"),
        (vec!["--help"], "Unknown IMP command"),
        (vec!["x"; 40], "arguments must be at most"),
    ] {
        world.run(&mut world.imp(&words)).refused(why);
    }
    let long = "y".repeat(5000);
    world
        .run(&mut world.imp(&[&long]))
        .refused("arguments must be at most");
    // An option may not be smuggled in as job id.
    let input = world.input(&world.token(ALI), "");
    for id in ["-s", "--help", "", "a b", "../x", "a\nb"] {
        let mut command = world.imp(&["exec", SHELL, id]);
        world
            .run(command.stdin(fs::File::open(&input).unwrap()))
            .refused("is no job id");
    }
}

#[test]
fn case_005_standard_files_closed() {
    let Some(world) = World::new() else { return };
    let (good, bad) = (world.token(ALI), world.token_for(ALI, BOB, None));
    let contents = || {
        let names = [
            world.imp_file(),
            "/mnt/passwd".to_owned(),
            "/mnt/munge/key".to_owned(),
            IMP.to_owned(),
        ];
        names.map(|name| fs::read(name).unwrap())
    };
    let before = contents();
    for bits in 0..8 {
        for token in [&good, &bad] {
            let input = world.input(token, "ls /proc/self/fd >&2");
            let mut command = world.exec(&input);
            before_exec(&mut command, Before::Close(bits));
            let output = world.run(&mut command);
            // The C library puts a file there that cannot be used; a shell that has to write fails.
            let usable = bits & 3 == 0 && token == &good;
            assert_eq!(output.code == Some(0), usable, "{bits}: {output:?}");
        }
        assert!(before == contents(), "a file was written with {bits} closed");
    }
}

#[test]
fn case_006_standard_files_of_odd_kinds() {
    let Some(world) = World::new() else { return };
    let bad = world.input("no token", "");
    let full = || {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &writer, &[0; 4096]).is_ok() {}
        (reader, std::os::fd::OwnedFd::from(writer))
    };
    let (_reader, writer) = full();
    let kinds: Vec<Stdio> = vec![
        fs::File::open("/mnt").unwrap().into(),
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into(),
        fs::OpenOptions::new()
            .read(true)
            .custom_flags_path()
            .open("/mnt/shell")
            .unwrap()
            .into(),
        writer.into(),
    ];
    for kind in kinds {
        let mut command = world.exec(&bad);
        let mut child = command.stdout(Stdio::null()).stderr(kind).spawn().unwrap();
        assert_eq!(finish(&mut child, DEADLINE).code, Some(1));
    }
    for input in ["/mnt", "/dev/full", "/mnt/shell"] {
        let mut command = world.imp(&["exec", SHELL, "1"]);
        world
            .run(command.stdin(fs::File::open(input).unwrap()))
            .refused("exec: ");
    }
}

trait PathOnly {
    fn custom_flags_path(&mut self) -> &mut Self;
}

impl PathOnly for fs::OpenOptions {
    fn custom_flags_path(&mut self) -> &mut Self {
        std::os::unix::fs::OpenOptionsExt::custom_flags(self, libc::O_PATH)
    }
}

#[test]
fn case_007_008_descriptors_are_not_inherited() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "ls /proc/self/fd | tr '\\n' ' '");
    let mut command = world.exec(&input);
    before_exec(&mut command, Before::OpenMany(900));
    // `ls` itself opens 3.
    assert!(world.run(&mut command).ran().stdout.starts_with("0 1 2 3 "));
    let mut command = world.exec(&input);
    before_exec(&mut command, Before::Limit(libc::RLIMIT_NOFILE, 3));
    let output = world.run(&mut command);
    assert!(
        output.code != Some(0) && !output.stdout.contains("RAN"),
        "{output:?}"
    );
}

#[test]
fn case_009_no_privilege_no_job() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    let mut command = world.exec(&input);
    before_exec(&mut command, Before::NoNewPrivileges);
    world
        .run(&mut command)
        .refused("exec: IMP not installed setuid, operation disabled.");
    fs::create_dir("/mnt/nosuid").unwrap();
    mount("none", "/mnt/nosuid", "tmpfs", libc::MS_NOSUID, "mode=755").unwrap();
    fs::copy(IMP, "/mnt/nosuid/flux-imp").unwrap();
    fs::set_permissions("/mnt/nosuid/flux-imp", PermissionsExt::from_mode(0o4755)).unwrap();
    let mut command = Command::new("/mnt/nosuid/flux-imp");
    command
        .args(["exec", SHELL, "1"])
        .uid(OWNER)
        .gid(OWNER)
        .stdin(fs::File::open(&input).unwrap());
    world
        .run(&mut command)
        .refused("exec: IMP not installed setuid, operation disabled.");
    // In a user namespace of the caller's root means nothing.
    let mut command = Command::new("unshare");
    command
        .args(["-r", IMP, "exec", SHELL, "1"])
        .uid(OWNER)
        .gid(OWNER);
    let output = world.run(command.stdin(fs::File::open(&input).unwrap()));
    assert!(
        output.code != Some(0) && !output.stdout.contains("RAN"),
        "{output:?}"
    );
}

#[test]
fn case_010_other_callers() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    for (uid, why) in [
        (ALI, "exec: user ali not in allowed-users list"),
        (BOB, "exec: user bob not in allowed-users list"),
        (NOBODY, "userid 7999 is not known"),
    ] {
        world.run(world.exec(&input).uid(uid).gid(uid)).refused(why);
    }
}

#[test]
fn case_010_a_refusal_does_not_wait_for_input() {
    let Some(world) = World::new() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = world.imp(&["exec", SHELL, "1"]);
    command.uid(BOB).gid(BOB).stdin(reader);
    run_within(&mut command, std::time::Duration::from_secs(10))
        .refused("user bob not in allowed-users list");
    drop(writer);
}

#[test]
fn case_011_links_and_names() {
    let Some(world) = World::new() else { return };
    let (good, bad) = (world.input(&world.token(ALI), ""), world.input("no token", ""));
    fs::hard_link(IMP, "/mnt/home/hard").unwrap();
    symlink(IMP, "/mnt/home/soft").unwrap();
    for name in ["/mnt/home/hard", "/mnt/home/soft"] {
        let run = |input: &str| {
            let mut command = Command::new(name);
            command.args(["exec", SHELL, "1"]).uid(OWNER).gid(OWNER);
            world.run(command.stdin(fs::File::open(input).unwrap()))
        };
        run(&good).ran();
        run(&bad).refused("exec: sign-unwrap: ");
    }
    fs::remove_file("/mnt/home/hard").unwrap();
}

#[test]
fn case_012_the_callers_own_mounts() {
    let Some(world) = World::new() else { return };
    fs::create_dir("/mnt/home/etc").unwrap();
    fs::create_dir_all("/mnt/home/etc/flux/imp/conf.d").unwrap();
    let input = world.input(&world.token(ALI), "");
    let script = format!(
        "mount --bind /mnt/home/etc {} && {IMP} exec {SHELL} 1 <{input}",
        sysconfdir()
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).uid(BOB).gid(BOB);
    let output = world.run(&mut command);
    assert!(
        output.code != Some(0) && !output.stdout.contains("RAN"),
        "{output:?}"
    );
}

#[test]
fn case_013_to_017_environment_has_no_effect() {
    let Some(world) = World::new() else { return };
    let evil = world.compile(
        "evil.so",
        "#include <fcntl.h>\n__attribute__((constructor)) static void start (void) { open (\"/mnt/home/evil\", O_CREAT | O_WRONLY, 0666); }",
        &["-shared", "-fPIC"],
    );
    fs::set_permissions(HOME, PermissionsExt::from_mode(0o777)).unwrap();
    let pattern = world.put("evil.toml", "[exec]\nallowed-users = [\"bob\"]\n", 0o644);
    let script = "env | sort | tr '\\n' ';'";
    let input = world.input(&world.token(ALI), script);
    let mut command = world.exec(&input);
    for name in [
        "LD_PRELOAD",
        "LD_AUDIT",
        "BASH_ENV",
        "ENV",
        "GCONV_PATH",
        "RESOLV_HOST_CONF",
        "FLUX_SHELL_RC_PATH",
    ] {
        command.env(name, &evil);
    }
    for (name, value) in [
        ("LD_LIBRARY_PATH", HOME),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "full"),
        ("LLVM_PROFILE_FILE", "/mnt/home/evil"),
        ("MALLOC_TRACE", "/mnt/home/evil"),
        ("TMPDIR", HOME),
        ("TZ", "/etc/shadow"),
        ("LOCPATH", HOME),
        ("NLSPATH", HOME),
        ("SHELLOPTS", "xtrace"),
        ("BASH_FUNC_x%%", "() { touch /mnt/home/evil; }"),
        ("IFS", "/"),
        ("PATH", HOME),
        ("FLUX_IMP_CONFIG_PATTERN", &pattern),
        ("FLUX_TEST_IMP_PATH_PARANOIA", "0"),
        ("FLUX_MODULE_PATH", HOME),
    ] {
        command.env(name, value);
    }
    let output = world.run(&mut command);
    let want = "HOME=/home/ali;LOGNAME=ali;PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin;\
                PROBE={};PWD=/;SHELL=/bin/sh;USER=ali;RAN\n";
    assert_eq!(output.ran().stdout, want.replace("{}", &world.id));
    assert!(!fs::exists("/mnt/home/evil").unwrap());
    world
        .run(command.stdin(fs::File::open(&input).unwrap()).uid(BOB).gid(BOB))
        .refused("user bob not in");
    // The hooks of the original's tests are not even in the program.
    let program = fs::read(binary()).unwrap();
    for hook in ["FLUX_IMP_CONFIG_PATTERN", "FLUX_TEST_IMP", "FLUX_SECURITY_"] {
        assert!(
            !program.windows(hook.len()).any(|part| part == hook.as_bytes()),
            "{hook}"
        );
    }
}

#[test]
fn case_018_the_helper_has_no_privilege() {
    let Some(world) = World::new() else { return };
    let (helper, token) = ("/mnt/home/helper", world.token(ALI));
    let write = |text: &str| {
        fs::write(helper, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(helper, PermissionsExt::from_mode(0o755)).unwrap();
        chown(helper, Some(OWNER), Some(OWNER)).unwrap();
    };
    let with = |words: &str, script: &str| {
        let script = world.put("script", format!("{script}\necho RAN\n"), 0o644);
        let mut command = world.imp(&["exec", SHELL, "9"]);
        command
            .env("FLUX_IMP_EXEC_HELPER", words)
            .env("PATH", "/usr/bin:/bin");
        world.run(command.stdin(fs::File::open(script).unwrap()))
    };
    write(&format!(
        "id -u -r >/mnt/home/ids; id -u >>/mnt/home/ids; id -G >>/mnt/home/ids; grep CapPrm /proc/self/status >>/mnt/home/ids; echo '{{\"J\":\"{token}\"}}'"
    ));
    assert!(with(helper, "id -un").ran().stdout.starts_with("ali\n"));
    let ids = fs::read_to_string("/mnt/home/ids").unwrap();
    assert_eq!(ids, "7001\n7001\n7001\nCapPrm:\t0000000000000000\n");
    write(&format!("echo '{{\"J\":\"{token}\"}}'; exit 3"));
    with(helper, "").refused("failed (exit status: 3)");
    write("echo nonsense");
    with(helper, "").refused("invalid json input");
    write("kill -9 $$");
    with(helper, "").refused("failed (signal: 9");
    with("", "").refused("FLUX_IMP_EXEC_HELPER is empty");
    with("/mnt/nothing-there", "").refused("No such file");
    // No shell reads its words.
    let output = with("sh -c 'touch /mnt/home/evil'", "");
    assert!(
        output.code == Some(1) && output.stderr.contains("FLUX_IMP_EXEC_HELPER: sh failed"),
        "{output:?}"
    );
    assert!(!fs::exists("/mnt/home/evil").unwrap());
}
