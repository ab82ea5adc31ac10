//! What cannot be done is refused with a word about the thing, and nothing hangs (acceptance 10).

use flux_tests::{Capability, Instance, Sandbox, missing};

#[test]
fn jobs_that_cannot_be() {
    let flux = Instance::boot(2);
    flux.run(&["run", "-N100", "true"])
        .fails()
        .complains("unsatisfiable");
    flux.run(&["run", "-N100", "true"])
        .fails()
        .complains("only 2 eligible");
    flux.run(&["run", "-n1", "-c", "100000", "true"])
        .fails()
        .complains("unsatisfiable");
    flux.run(&["run", "-n0", "true"]).fails();
    flux.run(&["run", "-N2", "-n1", "true"]).fails();
    flux.run(&["run", "--no-such-option", "true"])
        .fails()
        .complains("--no-such-option");
    flux.run(&["run", "-t", "soon", "true"]).fails().complains("soon");
    flux.run(&["submit", "--urgency=99", "true"])
        .fails()
        .complains("urgency");
    flux.run(&["submit", "--dependency=nosuch:thing", "true"])
        .fails()
        .complains("nosuch");
    flux.run(&["submit", "--requires=a&&|", "true"]).fails();
    flux.run(&["run"]).fails();
    flux.run(&["run", "true"]).ok();
    flux.stop();
}

#[test]
fn bad_jobspecs() {
    let flux = Instance::boot(1);
    let cases: &[(&str, &str)] = &[
        ("not json", "JSON"),
        ("{}", "resources"),
        (
            r#"{"version":2,"resources":[],"tasks":[],"attributes":{}}"#,
            "version",
        ),
        (
            r#"{"version":1,"resources":[{"type":"slot","count":-1,"label":"t","with":[{"type":"core","count":1}]}],
               "tasks":[{"command":["true"],"slot":"t","count":{"per_slot":1}}],"attributes":{"system":{"duration":0}}}"#,
            "count",
        ),
    ];
    for (spec, word) in cases {
        let output = flux.run_input(&["job", "submit"], spec.as_bytes());
        output.fails();
        assert!(
            output.stderr.to_lowercase().contains(&word.to_lowercase()),
            "{word}: {output}"
        );
    }
    flux.run(&["run", "true"]).ok();
    flux.stop();
}

/// A full disk under the store: what was acknowledged stays, what cannot be kept is refused, nothing hangs.
#[test]
fn a_full_disk() {
    if missing(Capability::Root) || missing(Capability::Mount) {
        return;
    }
    let builder = Instance::builder(1);
    let script = r#"
        set -e; mkdir -p state; mount -t tmpfs -o size=4m none state
        flux start -s 1 -Sstatedir=$PWD/state sh -c '
            flux kvs put keep=this
            ids=; n=0
            head -c 3000000 /dev/zero >state/ballast || true
            while id=$(flux submit --quiet=no true 2>err || flux submit true 2>err); do ids="$ids $id"; n=$((n+1)); test $n -lt 3000 || break; done
            echo "accepted $n"; cat err
            rm -f state/ballast
            flux kvs get keep
            flux queue drain --timeout=30s || echo "not drained"
            echo "known $(flux jobs -a -c0 -n | wc -l)"'
    "#;
    let sandbox = builder.sandbox();
    let output = sandbox.run("unshare", &["-m", "sh", "-c", script]);
    output.says("this").says("accepted");
    let number = |word: &str| {
        let line = output
            .lines()
            .into_iter()
            .find_map(|line| line.strip_prefix(word))
            .map(str::trim);
        line.and_then(|text| text.parse::<usize>().ok())
    };
    assert!(
        number("known").unwrap() >= number("accepted").unwrap(),
        "{output}"
    );
}

/// The site chooses which validators look at a job.
#[test]
fn validators_are_chosen_by_the_configuration() {
    let sandbox = Sandbox::new();
    let run = |setting: &str| {
        let conf = format!("--conf=ingest.validator.{setting}");
        sandbox.start(&["-s", "1", &conf, "flux run echo seen"])
    };
    run("plugins=[\"jobspec\"]").ok().says("seen");
    run("disable=true").ok().says("seen");
    run("plugins=[\"nosuch\"]").fails().complains("validator-nosuch");
}
