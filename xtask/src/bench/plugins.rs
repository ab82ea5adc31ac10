//! What does a plugin cost, and what do others feel of one that misbehaves?

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flux_client::{Handle, NODEID_ANY, Rpc};
use serde::de::IgnoredAny;
use serde_json::json;

use super::instance::{Instance, output};
use super::{Bench, Figure, Unit, median, policies};

/// Requests whose times make one figure.
const REQUESTS: usize = 2000;
/// Measurements with and without, by turns.
const TURNS: usize = 5;
const HOSTILE: &str = "jobtap-hostile";

/// Loading, calling, and being bothered.
pub(super) fn all(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = vec![policies::empty_callback(bench)?];
    figures.extend(loading(bench)?);
    figures.extend(bothered(bench)?);
    Ok(figures)
}

/// Compiled components and raw ones, through `flux jobtap load`'s own request.
fn loading(bench: &Bench) -> Result<Vec<Figure>> {
    let instance = bench.instance(&["-s", "1"])?;
    let mut handle = instance.handle()?;
    let mut load = |what: &str| -> Result<f64> {
        let begun = Instant::now();
        let request = json!({"load": what, "remove": "submit-hold"});
        handle.call::<IgnoredAny>("job-manager.jobtap", NODEID_ANY, &request)?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    };
    let compiled = median(21, || load("submit-hold"))?;
    let raw = raw_component(bench)?;
    let size = std::fs::metadata(&raw)?.len().div_ceil(1000);
    let original = std::fs::read(&raw)?;
    let mut turn = 0_u8;
    let raw = median(5, || {
        // other content each time, so that nothing comes from the cache: a custom section of one byte
        turn += 1;
        std::fs::write(&raw, [&original[..], &[0, 3, 1, b'x', turn]].concat())?;
        load(&raw.display().to_string())
    })?;
    drop(handle);
    instance.stop()?;
    let figure = |work: String, goal, ours| Figure::new(work, Unit::Millis, None, goal, ours);
    Ok(vec![
        figure("load a compiled component".to_owned(), 3.0, compiled),
        figure(format!("load a raw component of {size} KB"), 300.0, raw),
    ])
}

/// Returns a copy of the component that is nearest to 76 KB.
fn raw_component(bench: &Bench) -> Result<PathBuf> {
    // a copy has not the grants that these have by their names
    const GRANTED: [&str; 2] = ["jobtap-alloc-bypass", "jobtap-perilog"];
    let dir = bench.prefix.join("lib/flux/policies");
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let nearest = std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "wasm"))
        .filter(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            name.starts_with("jobtap-") && !GRANTED.contains(&&*name)
        })
        .min_by_key(|path| size(path).abs_diff(76_000));
    let nearest = nearest.with_context(|| format!("no components in {}", dir.display()))?;
    let copy = bench.scratch.join("submit-hold.wasm");
    std::fs::copy(&nearest, &copy)?;
    Ok(copy)
}

/// Returns where the components are that only tests use.
pub(super) fn test_plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies-test")
}

/// The 99th percentile of a request's time while a plugin misbehaves, of that while it does nothing.
fn bothered(bench: &Bench) -> Result<Vec<Figure>> {
    let plugin = test_plugins().join(format!("{HOSTILE}.cwasm"));
    ensure!(
        plugin.is_file(),
        "{} is missing: run `cargo xtask wasm`",
        plugin.display()
    );
    let config = bench.write(
        "plugins/conf.toml",
        &format!("[policies.{HOSTILE}]\non-failure = \"open\"\ndeadline = \"1s\"\n"),
    )?;
    let dir = config.parent().context("a file is in a directory")?;
    let instance = bench.instance(&[
        "-s".to_owned(),
        "1".to_owned(),
        format!("--config-path={}", dir.display()),
    ])?;
    let mut figures = Vec::new();
    for (deed, words, calls) in [
        ("loop", "loops", 4),
        ("bomb", "eats memory", 4),
        ("flood", "floods the log", 200),
        ("timers", "has 9000 timers that always expire", 1),
    ] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            without.push(turn(&instance, &plugin, "nothing", calls)?);
            with.push(turn(&instance, &plugin, deed, calls)?);
        }
        let (with, without) = (middle(&mut with), middle(&mut without));
        let work = format!(
            "RPC p99 while a plugin {words}: {:.0} us; without {:.0} us",
            with * 1e6,
            without * 1e6
        );
        figures.push(Figure::new(work, Unit::Times, None, 1.5, with / without));
    }
    instance.stop()?;
    Ok(figures)
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::INFINITY)
}

/// Has the plugin called `calls` times, and measures requests meanwhile.
fn turn(instance: &Instance, plugin: &Path, deed: &str, calls: usize) -> Result<f64> {
    let (plugin, deed) = (plugin.display().to_string(), format!("deed={deed}"));
    let words = [
        "jobtap",
        "load",
        "-r",
        HOSTILE,
        &plugin,
        "at=query",
        &deed,
        "topics=plugin.query",
    ];
    output(&mut instance.flux(&words))?;
    let (mut asking, mut handle) = (instance.handle()?, instance.handle()?);
    asking.set_timeout(Some(Duration::from_secs(60)));
    let query = json!({"name": HOSTILE});
    let asked = (0..calls)
        .map(|_| asking.rpc("job-manager.jobtap-query", NODEID_ANY, &query))
        .collect::<Result<Vec<Rpc>, _>>()?;
    asking.flush()?;
    let p99 = p99(&mut handle)?;
    for rpc in &asked {
        // a plugin that loops answers with a failure
        let _said = asking.wait(rpc);
    }
    Ok(p99)
}

/// Returns the seconds that all but one in a hundred requests do not exceed.
fn p99(handle: &mut Handle) -> Result<f64> {
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        handle.call::<IgnoredAny>("job-manager.getinfo", NODEID_ANY, &json!({}))?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times
        .get(REQUESTS * 99 / 100)
        .copied()
        .context("nothing was measured")
}
