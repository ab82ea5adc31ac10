//! Which module names can be loaded, and how is each made?

use crate::service::Service;

/// Returns a new module, or `None` when no module has that name. `args` are those of `flux module load`.
pub fn create(name: &str, args: &[String]) -> Option<Box<dyn Service>> {
    let _ = args;
    match name {
        // one line per module: "kvs" => Some(Box::new(super::kvs::Kvs::new(args))),
        "heartbeat" => Some(Box::<super::heartbeat::Heartbeat>::default()),
        "cron" => Some(Box::new(super::cron::Cron::new(args))),
        "resource" => Some(Box::<super::resource::Resource>::default()),
        "rexec" => Some(Box::<super::rexec::Rexec>::default()),
        "job-exec" => Some(Box::<super::job_exec::JobExec>::default()),
        "job-info" => Some(Box::<super::job_info::JobInfo>::default()),
        "kvs-watch" => Some(Box::new(super::kvs_watch::KvsWatch)),
        "content" => Some(Box::<super::content::Content>::default()),
        "content-sqlite" => Some(Box::new(super::content_sqlite::ContentSqlite::new(args))),
        "kvs" => Some(Box::<super::kvs::Kvs>::default()),
        "job-ingest" => Some(Box::new(super::job_ingest::JobIngest::new(args))),
        "job-manager" => Some(Box::<super::job_manager::JobManager>::default()),
        "sched-simple" => Some(Box::<super::sched::Sched>::default()),
        "job-list" => Some(Box::<super::job_list::JobList>::default()),
        _ => None,
    }
}
