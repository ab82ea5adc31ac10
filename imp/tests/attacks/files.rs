//! Cases 29 to 33: configuration, shells, and munged's socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::world::*;

#[test]
fn case_029_configuration_that_others_may_have_written() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    let (file, directory) = (world.imp_file(), format!("{}/flux/imp/conf.d", sysconfdir()));
    let good = fs::read(&file).unwrap();
    let mode = |path: &str, mode: u32| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let reset = || {
        drop(fs::remove_file(&file));
        fs::write(&file, &good).unwrap();
        mode(&file, 0o644);
        mode(&directory, 0o755);
        chown(&directory, Some(0), Some(0)).unwrap();
        world.run(&mut world.exec(&input)).ran();
    };
    let refused = |why: &str| {
        world.run(&mut world.exec(&input)).refused(why);
        reset();
    };
    reset();
    fs::copy(&file, "/mnt/real.toml").unwrap();
    fs::remove_file(&file).unwrap();
    symlink("/mnt/real.toml", &file).unwrap();
    refused("imp.toml is a symbolic link");
    mode(&file, 0o664);
    refused("imp.toml may be written by others than root");
    mode(&file, 0o646);
    refused("imp.toml may be written by others than root");
    chown(&file, Some(OWNER), None).unwrap();
    refused("imp.toml does not belong to root");
    mode(&directory, 0o777);
    refused("conf.d may be written by others than root");
    chown(&directory, Some(OWNER), None).unwrap();
    refused("conf.d does not belong to root");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    refused("imp.toml is not a regular file");
    fs::remove_file(&file).unwrap();
    let node = Command::new("mknod").args([&file, "c", "1", "5"]).status();
    // Not every container lets root make one.
    if node.is_ok_and(|status| status.success()) {
        refused("imp.toml");
    }
    let huge = fs::OpenOptions::new().write(true).open(&file).unwrap();
    huge.set_len(10 << 30).unwrap();
    refused("more than 65536 bytes");
    fs::write(&file, [good.as_slice(), b"\n# \xff\n"].concat()).unwrap();
    refused("imp.toml is not UTF-8");
    fs::remove_file(&file).unwrap();
    refused("No config file(s) found");
    // A directory further up counts too, which the original does not look at.
    let above = format!("{}/flux", sysconfdir());
    mode(&above, 0o777);
    world
        .run(&mut world.exec(&input))
        .refused("/flux may be written by others than root");
    mode(&above, 0o755);
    reset();
}

#[test]
fn case_030_configuration_that_is_swapped() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    let (file, good) = (
        world.imp_file(),
        world.put("good.toml", fs::read(world.imp_file()).unwrap(), 0o644),
    );
    let evil = world.put(
        "evil.toml",
        format!("[exec]\nallowed-users = [\"bob\"]\nallowed-shells = [\"{SHELL}\"]\n"),
        0o644,
    );
    chown(&evil, Some(BOB), None).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let directory = format!("{}/flux/imp", sysconfdir());
    fs::copy(&good, format!("{directory}/good")).unwrap();
    fs::copy(&evil, format!("{directory}/evil")).unwrap();
    chown(format!("{directory}/evil"), Some(BOB), None).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["evil", "good"] {
                    // The threads share their mounts: a new thread is in its parent's.
                    drop(fs::remove_file(format!("{directory}/next")));
                    fs::hard_link(format!("{directory}/{name}"), format!("{directory}/next")).unwrap();
                    fs::rename(format!("{directory}/next"), &file).unwrap();
                }
            }
        });
        for _ in 0..30 {
            let output = world.run(world.exec(&input).uid(BOB).gid(BOB));
            assert!(
                output.code == Some(1) && !output.stdout.contains("RAN"),
                "{output:?}"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn case_031_shells() {
    let Some(world) = World::new() else { return };
    let token = world.token(ALI);
    for name in ["/mnt/open", "/mnt/d"] {
        fs::create_dir(name).unwrap();
    }
    fs::set_permissions("/mnt/open", PermissionsExt::from_mode(0o777)).unwrap();
    for to in [
        "/mnt/open/shell",
        "/mnt/theirs",
        "/mnt/loose",
        "/mnt/noexec",
        "/mnt/shellX",
    ] {
        fs::copy(SHELL, to).unwrap();
    }
    chown("/mnt/theirs", Some(OWNER), None).unwrap();
    fs::set_permissions("/mnt/loose", PermissionsExt::from_mode(0o775)).unwrap();
    fs::set_permissions("/mnt/noexec", PermissionsExt::from_mode(0o644)).unwrap();
    symlink(SHELL, "/mnt/link").unwrap();
    symlink("/mnt", "/mnt/linked").unwrap();
    world.put("script", "#!/bin/sh\necho RAN\n", 0o755);
    let cases = [
        ("shell", "is not absolute", 1),
        ("mnt/shell", "is not absolute", 1),
        ("/mnt/d/../shell", "'.' or '..'", 1),
        ("//mnt/shell", "empty name", 1),
        ("/mnt/link", "is a symbolic link", 1),
        ("/mnt/linked/shell", "/mnt/linked is a symbolic link", 1),
        ("/mnt/open/shell", "/mnt/open may be written by others", 1),
        ("/mnt/theirs", "does not belong to root", 1),
        ("/mnt/loose", "may be written by others", 1),
        ("/mnt/d", "is not a regular file", 1),
        ("/mnt/nothing", "cannot be opened", 1),
        ("/mnt/noexec", "cannot execute the program", 126),
        ("/mnt/script", "cannot execute the program", 127),
    ];
    let list: Vec<String> = cases.iter().map(|(shell, ..)| format!("{shell:?}")).collect();
    world.imp_config(format!(
        "[exec]\nallowed-users = [\"own\"]\nallowed-shells = [\"{SHELL}\", {}]",
        list.join(", ")
    ));
    let run = |shell: &str| {
        let mut command = world.imp(&["exec", shell, "1"]);
        world.run(command.stdin(fs::File::open(world.input(&token, "")).unwrap()))
    };
    for (shell, why, code) in cases {
        let refused = run(shell);
        refused.refused(why);
        assert!(is_foreign() || refused.code == Some(code), "{shell}: {refused:?}");
    }
    // CVE-2026-48785: what only begins like an allowed one.
    for shell in [
        "/mnt/shellX",
        "/mnt/shell/",
        "/mnt/shel",
        "/mnt/./shell",
        "/mnt/shell\n",
        "",
    ] {
        run(shell).refused("not in allowed-shells list");
    }
    run(SHELL).ran();
}

#[test]
fn case_032_a_munged_of_somebody_elses() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    let refused = |socket: &str, why: &str| {
        world.sign_config(socket, 1000, "");
        world.run(&mut world.exec(&input)).refused(why);
    };
    let listen = |socket: &str, uid: u32| {
        let listener = crate::world::sys::as_user(uid, || UnixListener::bind(socket).unwrap());
        fs::set_permissions(socket, PermissionsExt::from_mode(0o777)).unwrap();
        listener
    };
    fs::create_dir("/mnt/open").unwrap();
    fs::set_permissions("/mnt/open", PermissionsExt::from_mode(0o1777)).unwrap();
    let _theirs = listen("/mnt/open/socket", OWNER);
    refused("/mnt/open/socket", "directory may be written by others");
    // Below a directory that the owner could rename.
    fs::create_dir("/mnt/home/munge").unwrap();
    refused("/mnt/home/munge/socket", "/mnt/home does not belong to root");
    fs::set_permissions("/mnt/open", PermissionsExt::from_mode(0o755)).unwrap();
    refused("/mnt/open/socket", "userid 7001 listens, not root");
    symlink("/mnt/munge", "/mnt/linked").unwrap();
    refused("/mnt/linked/socket", "cannot be opened");
    refused("munge/socket", "is not absolute");
    // A directory of munge's own, as distributions have it.
    chown("/mnt/open", Some(BOB), None).unwrap();
    fs::remove_file("/mnt/open/socket").unwrap();
    let listener = listen("/mnt/open/socket", BOB);
    let thread = std::thread::spawn(move || drop(listener.accept().unwrap()));
    refused("/mnt/open/socket", "munge_decode");
    if !is_foreign() {
        // another may not even connect
        thread.join().unwrap();
    }
}

#[test]
fn case_033_hostile_toml() {
    let Some(world) = World::new() else { return };
    let input = world.input(&world.token(ALI), "");
    let texts = [
        format!("a = {}", "[".repeat(60_000)),
        format!("a = {}{}", "[".repeat(50), "]".repeat(50)),
        "[a.".to_owned() + &"b.".repeat(20_000) + "c]",
        format!("a = {}", "9".repeat(60_000)),
        "a = 99999999999999999999".to_owned(),
        "a = \"\"\"unterminated".to_owned(),
        "[exec]\n[exec]".to_owned(),
        "a = 1\na = 2".to_owned(),
        "a = \"\0\"".to_owned(),
        "a = \"\\u0000\"".to_owned(),
        "\0".repeat(60_000),
        "[[a]]\n".repeat(8000),
        "a".repeat(65_000),
        (0..5000).map(|n| format!("k{n} = 1\n")).collect(),
        "a = nan".to_owned(),
        "a = 1979-05-27".to_owned(),
        "= = =".to_owned(),
    ];
    for text in texts {
        world.imp_config(&text);
        let output = world.run(&mut world.exec(&input));
        output.refused("");
        // It says where, or that there is no [exec]; it never dies of it.
        assert!(
            !output.stderr.contains("parser failed"),
            "{:.40}: {output:?}",
            text
        );
    }
}
