//! Cases 57 to 64: processes of the job, control groups, devices, /proc.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::sys::{kill, mount, tmpfs};
use crate::world::*;

/// Tells whether control groups of version 2 can be used here.
fn has_cgroups(world: &World) -> bool {
    world.exec_config("cgroup = \"require\"");
    let able = world.try_exec(&world.token(ALI), "").code == Some(0);
    if !able {
        skip("cgroup2");
    }
    able
}

/// Starts a job and waits until its script has made /tmp-like file NAME in the owner's open directory.
fn start(world: &World, script: &str) -> Child {
    fs::set_permissions(HOME, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    drop(fs::remove_file("/mnt/home/ready"));
    let input = world.input(&world.token(ALI), script);
    let mut command = world.exec(&input);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the job", || fs::exists("/mnt/home/ready").unwrap());
    child
}

const READY: &str = "touch /mnt/home/ready";
/// Processes that do what they can to be overlooked.
const HIDE: &str = "trap '' TERM INT HUP USR1; setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & (setsid sh -c '(sleep 1001 &) &' &) \n (sleep 1002 &) \n touch /mnt/home/ready; sleep 1003";

#[test]
fn case_057_surrogate_kill_and_relayed_signals() {
    let Some(world) = World::new() else { return };
    for config in ["", "cgroup = \"off\""] {
        world.exec_config(config);
        let mut child = start(&world, HIDE);
        kill(child.id().cast_signed(), libc::SIGTERM);
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(child.try_wait().unwrap().is_none());
        let begun = Instant::now();
        kill(child.id().cast_signed(), libc::SIGUSR1);
        assert_eq!(finish(&mut child, DEADLINE).signal, Some(libc::SIGKILL));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        world.nothing_is_left();
        // Signals come through; the end by one is passed on.
        let mut child = start(&world, &format!("{READY}; exec sleep 1000"));
        kill(child.id().cast_signed(), libc::SIGTERM);
        assert_eq!(finish(&mut child, DEADLINE).signal, Some(libc::SIGTERM));
        let mut child = start(
            &world,
            &format!("trap 'exit 5' HUP; {READY}; while :; do sleep 0.01; done"),
        );
        kill(child.id().cast_signed(), libc::SIGHUP);
        assert_eq!(finish(&mut child, DEADLINE).code, Some(5));
        world.nothing_is_left();
        // A job that has stopped itself.
        let mut child = start(&world, &format!("{READY}; kill -STOP $$"));
        kill(child.id().cast_signed(), libc::SIGUSR1);
        finish(&mut child, DEADLINE);
        world.nothing_is_left();
    }
}

#[test]
fn case_057_leftovers_end_with_the_shell() {
    let Some(world) = World::new() else { return };
    for config in ["", "cgroup = \"off\""] {
        world.exec_config(config);
        world
            .try_exec(&world.token(ALI), "setsid sleep 1000 & (setsid sleep 1001 &)")
            .ran();
    }
}

#[test]
fn case_060_moved_frozen_and_forking_jobs_are_ended() {
    let Some(world) = World::new() else { return };
    if !has_cgroups(&world) {
        return;
    }
    let root = if fs::exists("/sys/fs/cgroup/cgroup.procs").unwrap() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    // It cannot leave by itself.
    let output = world.try_exec(
        &world.token(ALI),
        &format!("echo $$ > {root}/cgroup.procs && echo MOVED"),
    );
    assert!(!output.ran().stdout.contains("MOVED"));
    let pids = |what: &str| {
        let groups = world.cgroups();
        let text = fs::read_to_string(format!("{}/cgroup.procs", groups.first().expect(what))).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // Somebody with the right to do so has moved it elsewhere; it is found as a child.
    let elsewhere = format!("{root}/elsewhere-{}", std::process::id());
    fs::create_dir(&elsewhere).unwrap();
    let mut child = start(&world, HIDE);
    for pid in pids("a group") {
        // Some are gone again before they are moved.
        drop(fs::write(format!("{elsewhere}/cgroup.procs"), pid));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.nothing_is_left();
    wait_for("the other group to be empty", || {
        fs::remove_dir(&elsewhere).is_ok()
    });
    let mut child = start(&world, HIDE);
    fs::write(format!("{}/cgroup.freeze", world.cgroups()[0]), "1").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    world.nothing_is_left();
    let bomb = format!("{READY}; f() {{ while :; do f & f & sleep 0.01; done; }}; f");
    let mut command = world.exec(&world.input(&world.token(ALI), &format!("ulimit -p 300; {bomb}")));
    drop(fs::remove_file("/mnt/home/ready"));
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the bomb", || fs::exists("/mnt/home/ready").unwrap());
    std::thread::park_timeout(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    world.nothing_is_left();
}

#[test]
fn case_061_062_a_groups_name_means_nothing() {
    let Some(world) = World::new() else { return };
    if !has_cgroups(&world) {
        return;
    }
    let root = if fs::exists("/sys/fs/cgroup/cgroup.procs").unwrap() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    let around = format!("{root}/flux-x{}", std::process::id());
    fs::create_dir(&around).unwrap();
    // The call and an innocent process are in a group whose name the original trusts.
    let input = world.input(&world.token(ALI), &format!("{READY}; sleep 1000"));
    let line = format!(
        "echo $$ > {around}/cgroup.procs; sleep 1000 & exec setpriv --reuid=7001 --regid=7001 --clear-groups {IMP} exec {SHELL} 5 <{input}"
    );
    fs::set_permissions(HOME, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", &line])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the job", || fs::exists("/mnt/home/ready").unwrap());
    kill(child.id().cast_signed(), libc::SIGUSR1);
    assert_eq!(finish(&mut child, DEADLINE).signal, Some(libc::SIGKILL));
    let left = fs::read_to_string(format!("{around}/cgroup.procs")).unwrap();
    assert_eq!(left.lines().count(), 1, "{left}");
    fs::write(format!("{around}/cgroup.kill"), "1").unwrap();
    wait_for("the group's end", || fs::remove_dir(&around).is_ok());
}

#[test]
fn case_063_proc_is_missing_or_false() {
    let Some(world) = World::new() else { return };
    let (token, proc) = (world.token(ALI), "/proc");
    // Other users' processes are hidden.
    mount("proc", proc, "proc", 0, "hidepid=2").unwrap();
    world.run(&mut world.exec(&world.input(&token, ""))).ran();
    tmpfs(proc);
    let run = |config: &str| {
        world.exec_config(config);
        run_within(&mut world.exec(&world.input(&token, "")), DEADLINE)
    };
    assert!(
        run("")
            .ran()
            .stderr
            .contains("Warning: exec: no control group: /proc")
    );
    run("cgroup = \"require\"").refused("exec: /proc");
    fs::create_dir_all("/proc/self").unwrap();
    fs::write("/proc/self/cgroup", "0::/../../x\n").unwrap();
    run("cgroup = \"require\"").refused("/proc is not what it should be");
}

#[test]
fn case_064_devices() {
    let Some(world) = World::new() else { return };
    let token = world.token(ALI);
    let run = |options: &str, script: &str| {
        let document = format!("{{\"J\":\"{token}\",\"options\":{options}}}");
        world.run(&mut world.exec(&world.document(&document, script)))
    };
    let probe = "(head -c1 /dev/zero >/dev/null) 2>/dev/null && echo ZERO; (: </dev/null) 2>/dev/null && echo NULL; (head -c1 /dev/full >/dev/null) 2>/dev/null && echo FULL";
    // Contained as asked, or refused: never uncontained.
    let strict = r#"{"DevicePolicy":"strict","DeviceAllow":[["/dev/null","rw"],["/dev/full","w"]]}"#;
    let output = run(strict, probe);
    if output.code == Some(0) {
        assert_eq!(output.stdout, "NULL\nRAN\n");
        let closed = r#"{"DevicePolicy":"closed"}"#;
        assert_eq!(run(closed, probe).ran().stdout, "ZERO\nNULL\nFULL\nRAN\n");
        let auto = r#"{"DevicePolicy":"auto"}"#;
        assert_eq!(run(auto, probe).ran().stdout, "ZERO\nNULL\nFULL\nRAN\n");
        let odd = r#"{"DevicePolicy":"strict","DeviceAllow":[["/dev/nope","rw"],["/etc/passwd","r"],["/dev/null","rw"]]}"#;
        let output = run(odd, probe);
        assert_eq!(output.ran().stdout, "NULL\nRAN\n");
        assert_eq!(output.stderr.matches("Warning: exec: DeviceAllow").count(), 2);
    } else {
        output.refused("devices cannot be contained");
        skip("device programs");
    }
    world.exec_config("cgroup = \"off\"");
    run(strict, probe).refused("devices cannot be contained: exec.cgroup is off");
    for options in [
        r#"{"DevicePolicy":"open"}"#,
        r#"{"DeviceAllow":[["/dev/null"]]}"#,
        "7",
    ] {
        run(options, probe).refused("exec: ");
    }
}

#[test]
fn case_065_logs_are_plain() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    for (shell, id) in [
        ("/mnt/\u{1b}[2J\nx%s%n", "1"),
        (SHELL, "1\u{1b}\nFatal: forged"),
        (SHELL, "%n%n%n"),
    ] {
        let mut command = world.imp(&["exec", shell, id]);
        world
            .run(command.stdin(fs::File::open(&input).unwrap()))
            .refused("exec: ");
    }
    let long = "x".repeat(4000);
    let mut command = world.imp(&["exec", &long, "1"]);
    let output = world.run(command.stdin(fs::File::open(&input).unwrap()));
    assert!(output.refused("xxx...").stderr.len() < 1200);
    // Accepted ones are logged where the administrator wants them.
    world.imp_config(format!(
        "log-level = \"info\"\n[exec]\nallowed-users = [\"own\"]\nallowed-shells = [\"{SHELL}\"]"
    ));
    let output = world.run(&mut world.exec(&input));
    let line = format!(
        "flux-imp: exec: started job {} of ali(7002) for own(7001), pid ",
        world.id
    );
    let mut lines: Vec<&str> = output.ran().stderr.lines().collect();
    lines.retain(|line| !line.contains("Warning: exec: no control group"));
    assert!(lines.len() == 1 && lines[0].starts_with(&line), "{output:?}");
}

#[test]
fn case_067_070_what_the_owner_may_tell_the_shell() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "env | grep FLUX; true");
    let run = |uri: &str| {
        world.run(
            world
                .exec(&input)
                .env("FLUX_URI", uri)
                .env("FLUX_SHELL_RC_PATH", HOME),
        )
    };
    for uri in [
        "ssh://host/x",
        "local://relative",
        "local:///mnt/../x",
        "",
        "local://",
        "local:///a\u{7}b",
    ] {
        run(uri).refused("FLUX_URI must be local:// and an absolute path");
    }
    run("local:///mnt/nothing").refused("cannot find the broker's socket");
    run("local:///mnt/shell").refused("cannot trust the broker's socket");
    let listen = |name: &str, uid: u32| {
        fs::set_permissions(HOME, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        crate::world::sys::as_user(uid, || std::os::unix::net::UnixListener::bind(name).unwrap())
    };
    let _theirs = listen("/mnt/home/theirs", BOB);
    run("local:///mnt/home/theirs").refused("cannot trust the broker's socket");
    let _ours = listen("/mnt/home/local-0", OWNER);
    assert_eq!(
        run("local:///mnt/home/local-0").ran().stdout,
        "FLUX_URI=local:///mnt/home/local-0\nRAN\n"
    );
}

#[test]
fn input_that_follows_the_document_is_the_shells() {
    let Some(world) = World::new() else { return };
    // From a pipe everything is the document.
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{{\"J\":\"{}\"}}", world.token(ALI)).unwrap();
    drop(writer);
    let output = world.run(world.imp(&["exec", SHELL, "1"]).stdin(reader));
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), ""));
    let output = world.try_exec(&world.token(ALI), "echo $PROBE; exit 42");
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(42), format!("{}\n", world.id).as_str())
    );
    let mut command = world.imp(&["exec", SHELL, "f1", "--reconnect"]);
    let input = world.input(&world.token(ALI), "echo $PROBE $1");
    let output = world.run(command.uid(OWNER).stdin(fs::File::open(input).unwrap()));
    assert_eq!(output.ran().stdout, "--reconnect f1\nRAN\n");
}
