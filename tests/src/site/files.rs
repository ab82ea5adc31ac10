//! What do the nodes of a site see? Users, hosts, configuration, and programs at their places.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::programs::Programs;
use super::users::{ALICE, BOB, FLUX, PROJECT, User};

/// Writes a file, and the directories above it.
pub(super) fn write(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("the site's directory is writable");
    }
    fs::write(path, text).expect("the site's directory is writable");
}

/// Returns the words of a unit's ExecStart, with the paths of the site.
pub(super) fn exec_start(unit: &str, prefix: &str) -> Vec<String> {
    let unit = unit.replace("\\\n", " ");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
    line.expect("the unit has an ExecStart")
        .replace("@BINDIR@", &format!("{prefix}/bin"))
        .replace("@SYSCONFDIR@", &format!("{prefix}/etc"))
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Writes what the nodes will see.
pub(super) fn write_files(dir: &Path, prefix: &str, size: u32, toml: &str, imp: &str) {
    let mut passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let mut group = fs::read_to_string("/etc/group").expect("/etc/group is readable");
    for user in [FLUX, ALICE, BOB] {
        let User { name, id } = user;
        passwd.push_str(&format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n"));
        group.push_str(&format!("{name}:x:{id}:\n"));
    }
    group.push_str(&format!("project:x:{PROJECT}:alice\n"));
    write(dir.join("passwd"), &passwd);
    write(dir.join("group"), &group);
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for rank in 0..size {
        hosts.push_str(&format!("10.77.0.{} test{rank}\n", rank + 1));
        fs::create_dir(dir.join(format!("state{rank}"))).expect("the directory is writable");
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.join(format!("state{rank}")), private).expect("it is ours");
        let owned = Command::new("chown")
            .arg(format!("{0}:{0}", FLUX.id))
            .arg(dir.join(format!("state{rank}")))
            .status();
        assert!(
            owned.is_ok_and(|status| status.success()),
            "root may give files away"
        );
    }
    write(dir.join("hosts"), &hosts);
    write(dir.join("pam.d/flux"), include_str!("../../../etc/pam.d/flux"));
    let libexec = format!("{prefix}/libexec/flux");
    let fill = |text: &str| {
        text.replace("@LIBEXECDIR@", &libexec)
            .replace("@SYSCONFDIR@", &format!("{prefix}/etc"))
    };
    for (name, text) in [
        ("prolog", include_str!("../../../etc/flux/prolog.in")),
        ("epilog", include_str!("../../../etc/flux/epilog.in")),
        ("housekeeping", include_str!("../../../etc/flux/housekeeping.in")),
    ] {
        write(dir.join("scripts").join(name), &fill(text));
    }
    // the files that are installed as examples, with the site's own names
    let last = size - 1;
    let system = fill(include_str!("../../../etc/flux/system.toml"))
        .replace("test[0-7]", &format!("test[0-{last}]"))
        .replace("cores = \"0-3\"", "cores = \"0-1\"");
    write(dir.join("etc/flux/system/conf.d/system.toml"), &system);
    if !toml.is_empty() {
        write(dir.join("etc/flux/system/conf.d/test.toml"), toml);
    }
    write(
        dir.join("etc/flux/security/conf.d/security.toml"),
        include_str!("../../../etc/flux/security.toml"),
    );
    write(
        dir.join("etc/flux/imp/conf.d/imp.toml"),
        &fill(include_str!("../../../etc/flux/imp.toml")),
    );
    if !imp.is_empty() {
        write(dir.join("etc/flux/imp/conf.d/test.toml"), imp);
    }
    let shared = dir.join("shared");
    fs::create_dir(&shared).expect("the directory is writable");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    let mut key = fs::File::create(shared.join("munge.key")).expect("the directory is writable");
    key.write_all(&[0x5a; 64]).expect("the key is writable");
    key.set_permissions(fs::Permissions::from_mode(0o400))
        .expect("it is ours");
}

/// What is mounted where, for all nodes.
pub(super) fn base_script(dir: &Path, programs: &Programs) -> String {
    let dir = dir.display();
    let Programs {
        prefix,
        flux,
        libexec,
        imp,
        policies,
    } = programs;
    let (flux, libexec, imp) = (flux.display(), libexec.display(), imp.display());
    let policies = policies.display();
    // what is taken may be below the prefix that the site hides
    let mut script = format!(
        "mkdir -p {dir}/programs/policies
         cd {dir}/programs
         touch flux flux-broker flux-shell flux-hwloc-xml flux-imp
         mount --bind {flux} flux
         mount --bind {libexec}/flux-broker flux-broker
         mount --bind {libexec}/flux-shell flux-shell
         mount --bind {libexec}/flux-hwloc-xml flux-hwloc-xml
         mount --bind {imp} flux-imp
         mount --bind {policies} policies
         mkdir -p {prefix}
         mount -t tmpfs -o mode=755 prefix {prefix}
         cd {prefix}
         mkdir -p bin etc libexec/flux lib/flux/policies
         touch bin/flux libexec/flux/flux-broker libexec/flux/flux-shell libexec/flux/flux-hwloc-xml
         mount --bind {dir}/programs/flux bin/flux
         mount --bind {dir}/programs/flux-broker libexec/flux/flux-broker
         mount --bind {dir}/programs/flux-shell libexec/flux/flux-shell
         mount --bind {dir}/programs/flux-hwloc-xml libexec/flux/flux-hwloc-xml
         mount --bind {dir}/programs/policies lib/flux/policies
         install -m 4755 {dir}/programs/flux-imp libexec/flux/flux-imp
         install -m 755 {dir}/scripts/* libexec/flux/
         mount --bind {dir}/etc etc
         mount --bind {dir}/passwd /etc/passwd
         mount --bind {dir}/group /etc/group
         mount --bind {dir}/hosts /etc/hosts
         cp -a /etc/pam.d/. {dir}/pam.d/
         mount --bind {dir}/pam.d /etc/pam.d
         mount -t tmpfs -o mode=755 home /home
         mount -t tmpfs -o mode=755 lib /var/lib
         mkdir site
         mount --bind {dir}/shared site\n"
    );
    for user in [FLUX, ALICE, BOB] {
        script.push_str(&format!(
            "install -d -m 700 -o {0} -g {0} /home/{1}\n",
            user.id, user.name
        ));
    }
    script
}
