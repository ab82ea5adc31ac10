//! `flux config`: files, get, load, reload; and refusals that keep the old configuration.

use flux_tests::{Instance, Sandbox};

#[test]
fn get_load_and_reload() {
    let flux = Instance::builder(2)
        .config("[tbon]\ntorpid_max = \"15s\"\n[mine]\nnumber = 3\n")
        .boot();
    assert_eq!(flux.run(&["config", "get", "mine.number"]).ok().line(), "3");
    assert_eq!(
        flux.on(1, &["config", "get", "tbon.torpid_max"]).ok().line(),
        "15s"
    );
    flux.run(&["config", "get", "nosuch.key"])
        .fails()
        .complains("nosuch.key");
    assert_eq!(
        flux.run(&["config", "get", "--default=7", "nosuch.key"])
            .ok()
            .line(),
        "7"
    );
    flux.sandbox().write("config/test.toml", "[mine]\nnumber = 4\n");
    flux.run(&["config", "reload"]).ok();
    assert_eq!(flux.run(&["config", "get", "mine.number"]).ok().line(), "4");
    flux.run_input(&["config", "load"], b"[mine]\nnumber = 5\n").ok();
    assert_eq!(flux.run(&["config", "get", "mine.number"]).ok().line(), "5");
    flux.run(&["config", "set", "mine.text", "hello"]).ok();
    assert_eq!(
        flux.run(&["config", "get", "--type=string", "mine.text"])
            .ok()
            .line(),
        "hello"
    );
    flux.run(&["config", "unset", "mine.text"]).ok();
    flux.run(&["config", "get", "mine.text"]).fails();
    flux.stop();
}

#[test]
fn a_bad_file_keeps_the_old_configuration() {
    let flux = Instance::builder(1).config("[mine]\nnumber = 3\n").boot();
    flux.sandbox().write("config/test.toml", "[mine\nnumber = 4\n");
    flux.run(&["config", "reload"]).fails().complains("test.toml");
    assert_eq!(flux.run(&["config", "get", "mine.number"]).ok().line(), "3");
    flux.stop();
    let sandbox = Sandbox::new();
    sandbox.write("config/bad.toml", "= 1\n");
    let option = format!("--config-path={}", sandbox.workdir().join("config").display());
    sandbox
        .start(&["-s", "1", &option, "true"])
        .fails()
        .complains("bad.toml");
}

#[test]
fn values_on_the_command_line() {
    let output = Sandbox::new().start(&["-s", "1", "--conf=a.b=1", "--conf=a.c=\"x\"", "flux config get a"]);
    assert_eq!(output.ok().json(), serde_json::json!({"b": 1, "c": "x"}));
}
