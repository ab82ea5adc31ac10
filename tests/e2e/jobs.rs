//! `flux jobs`: formats of the user, and how they are listed.

use flux_tests::Instance;

#[test]
fn formats_of_the_user() {
    let flux = Instance::boot(1);
    flux.run(&["run", "--job-name=named", "true"]).ok();
    let file = flux.sandbox().write(
        ".config/flux/flux-jobs.toml",
        "[formats.mine]\ndescription = \"Mine\"\nformat = \"{name} {status}\"\n",
    );
    assert_eq!(
        flux.run(&["jobs", "-a", "-o", "mine"]).ok().lines(),
        ["NAME STATUS", "named COMPLETED"]
    );
    flux.run(&["jobs", "-o", "help"])
        .ok()
        .says("default")
        .says("endreason")
        .says("mine         Mine");
    flux.run(&["jobs", "-o", "get-config=mine"])
        .ok()
        .says("[formats.mine]\ndescription = \"Mine\"\nformat = \"{name} {status}\"\n");
    let output = flux.sh("FLUX_JOBS_FORMAT_DEFAULT=mine flux jobs -an");
    assert_eq!(output.ok().line(), "named COMPLETED");
    flux.run(&["jobs", "-o", "nosuch"])
        .fails()
        .complains("nosuch")
        .complains("mine");
    std::fs::write(file, "[formats.default]\nformat = \"{name}\"\n").unwrap();
    flux.run(&["jobs", "-o", "help"])
        .fails()
        .complains("override of builtin format 'default'");
    let config = "[queue.formats.x]\nformat = 1\n[list.formats.short]\nformat = \"{nnodes} {ncores}\"\n";
    flux.sandbox().write(".config/flux/flux-resource.toml", config);
    let output = flux.run(&["resource", "list", "-s", "all", "-no", "short"]);
    assert!(output.ok().line().starts_with("1 "), "{output}");
    for command in [
        ["resource", "list"],
        ["resource", "status"],
        ["resource", "drain"],
        ["queue", "list"],
    ] {
        flux.run(&[command[0], command[1], "--format=help"])
            .ok()
            .says("default");
    }
    flux.stop();
}
