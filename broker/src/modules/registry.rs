//! Which module names can be loaded, and how is each made?

use crate::service::Service;

/// Returns a new module, or `None` when no module has that name. `args` are those of `flux module load`.
pub fn create(name: &str, args: &[String]) -> Option<Box<dyn Service>> {
    let _ = args;
    match name {
        // one line per module: "kvs" => Some(Box::new(super::kvs::Kvs::new(args))),
        "resource" => Some(Box::<super::resource::Resource>::default()),
        "rexec" => Some(Box::<super::rexec::Rexec>::default()),
        "job-exec" => Some(Box::<super::job_exec::JobExec>::default()),
        _ => None,
    }
}
