//! Does `flux doctor` find what is wrong with a node, and say what to do? (needs root and namespaces)

use std::os::unix::fs::PermissionsExt;

use flux_tests::{ALICE, Capability, Output, ROOT, Sandbox, Site, missing};

fn doctor(site: &Site, rank: u32, args: &str) -> Output {
    let shell = site.remote_shell();
    let line = format!("FLUX_SSH={shell} flux doctor {args}");
    site.run(rank, ROOT, &["sh", "-c", &line])
}

/// Asserts that one check failed and gave this advice.
#[track_caller]
fn finds(output: &Output, check: &str, text: &str, advice: &str) {
    output.code(1);
    let lines = output.lines();
    let at = lines
        .iter()
        .position(|line| line.starts_with(&format!("FAILED   {check}")) && line.contains(text));
    let at = at.unwrap_or_else(|| panic!("no failure of {check} with '{text}' in {output}"));
    let next = lines.get(at + 1).copied().unwrap_or_default();
    assert!(next.contains("->") && next.contains(advice), "{next}");
}

#[test]
fn a_node_is_looked_at_before_it_goes_live() {
    if missing(Capability::Site) {
        return;
    }
    let mut site = Site::new(2, "", "");
    site.start(0);
    let on_node = |rank, line: &str| {
        site.run(rank, ROOT, &["sh", "-c", line]).ok();
    };
    // everything is as it should be
    let good = doctor(&site, 1, "--peers");
    good.ok()
        .says("becomes root")
        .says("test0 agrees")
        .says("is rank 1 of 2");
    let json = doctor(&site, 0, "--json").ok().json();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .all(|finding| finding["result"] != "FAILED")
    );
    // an ordinary user may ask, and learns less
    site.run(1, ALICE, &["flux", "doctor"]).ok().says("not tried");

    on_node(1, "chmod 0444 /usr/local/etc/flux/system/curve.cert");
    finds(
        &doctor(&site, 1, ""),
        "certificate",
        "open to everybody",
        "chmod 0400",
    );
    on_node(1, "chmod 0400 /usr/local/etc/flux/system/curve.cert");

    on_node(1, "chmod 0755 /usr/local/libexec/flux/flux-imp");
    finds(&doctor(&site, 1, ""), "imp", "not setuid", "chmod 4755");
    on_node(1, "chmod 4755 /usr/local/libexec/flux/flux-imp");

    let imp = site.sysconfdir().join("flux/imp/conf.d");
    let file = imp.join("imp.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"flux\"", "\"nobody\"")).unwrap();
    finds(
        &doctor(&site, 1, ""),
        "imp",
        "user flux may not use it",
        "exec.allowed-users",
    );
    std::fs::write(&file, text.replace("flux-shell", "sh")).unwrap();
    finds(
        &doctor(&site, 1, ""),
        "imp",
        "may not be started",
        "exec.allowed-shells",
    );
    std::fs::write(&file, &text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    finds(&doctor(&site, 1, ""), "imp-config", "mode 0666", "chmod 644");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();

    on_node(1, "mv /etc/pam.d/flux /etc/pam.d/flux.away");
    finds(&doctor(&site, 1, ""), "pam", "No such file", "etc/pam.d/flux");
    on_node(1, "mv /etc/pam.d/flux.away /etc/pam.d/flux");

    on_node(1, "ip link set eth0 down");
    finds(&doctor(&site, 1, ""), "parent", "test0", "");
    on_node(1, "ip link set eth0 up");

    finds(
        &doctor(&site, 1, "--owner=nobody-there"),
        "users",
        "no user",
        "useradd",
    );
    finds(
        &doctor(&site, 1, "--peers=test7"),
        "peers",
        "no such host",
        "ssh test7",
    );

    site.stop_munge(1);
    finds(
        &doctor(&site, 1, ""),
        "munge",
        "munged",
        "systemctl enable --now munge",
    );
    finds(
        &doctor(&site, 0, "--peers"),
        "peers",
        "test1: its MUNGE does not answer",
        "start munged",
    );
}

#[test]
fn a_machine_without_configuration_is_told_what_to_do() {
    let output = Sandbox::new().run("flux", &["doctor"]);
    output
        .code(1)
        .says("etc/flux/system.toml")
        .says("etc/flux/security.toml")
        .says("FAILED");
}

#[test]
fn the_help_names_every_check() {
    let output = Sandbox::new().run("flux", &["doctor", "--help"]);
    for check in [
        "users",
        "security",
        "certificate",
        "munge",
        "clock",
        "imp",
        "pam",
        "cgroup",
        "resources",
        "statedir",
        "parent",
        "peers",
        "Exit status",
    ] {
        output.ok().says(check);
    }
}
