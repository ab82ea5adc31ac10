//! What do the `{{tags}}` in file names, commands and environment values stand for?

use flux_formats::jobid::Encoding;
use flux_formats::mustache;

use crate::info::{JobInfo, Node};

/// A place in the job that tags may refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) info: &'a JobInfo,
    /// Shell rank of the node.
    pub(crate) shell_rank: u32,
    /// (rank, local id) of a task.
    pub(crate) task: Option<(u32, u32)>,
    pub(crate) tmpdir: &'a str,
}

/// Returns true when the text depends on the task or the node it is expanded for.
pub(crate) fn is_local(text: &str) -> bool {
    let mut local = false;
    mustache::expand(text, |tag| {
        local |= tag.starts_with("node.") || tag.starts_with("task") || tag == "tmpdir";
        None
    });
    local
}

impl Scope<'_> {
    /// Expands the tags of a text.
    pub(crate) fn expand(&self, text: &str) -> String {
        if !mustache::has_tags(text) {
            return text.to_owned();
        }
        mustache::expand(text, |tag| self.render(tag))
    }

    fn render(&self, tag: &str) -> Option<String> {
        if let Some(rest) = tag.strip_prefix("node.") {
            let node = usize::try_from(self.shell_rank)
                .ok()
                .and_then(|index| self.info.nodes.get(index))?;
            return self.render_node(rest, node);
        }
        let id = self.info.id;
        if let Some(form) = tag.strip_prefix("id.").or_else(|| tag.strip_prefix("jobid.")) {
            return Some(match form {
                "f58" => self.info.id_text.clone(),
                form => id.encode(Encoding::from_name(form)?),
            });
        }
        Some(match tag {
            "id" | "jobid" => self.info.id_text.clone(),
            "name" => self.name(),
            "nnodes" => self.info.shell_size().to_string(),
            "size" | "ntasks" => self.info.taskmap.ntasks().to_string(),
            "taskid" | "task.id" | "task.rank" => self.task?.0.to_string(),
            "task.index" | "task.localid" => self.task?.1.to_string(),
            "tmpdir" => self.tmpdir.to_owned(),
            _ => return None,
        })
    }

    fn name(&self) -> String {
        let name = self.info.system.job.name.clone();
        name.or_else(|| Some(self.info.command.first()?.rsplit('/').next()?.to_owned()))
            .unwrap_or_default()
    }

    fn render_node(&self, tag: &str, node: &Node) -> Option<String> {
        Some(match tag {
            "id" => self.shell_rank.to_string(),
            "name" => node.host.clone(),
            "broker_rank" => node.broker_rank.to_string(),
            "cores" => node.cores.to_string(),
            "gpus" => node.gpus.to_string(),
            "ncores" => node.cores.count().to_string(),
            "ngpus" => node.gpus.count().to_string(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_formats::jobid::JobId;

    #[test]
    fn tags_of_the_manual() {
        let text = r#"{"id":6731191091817518,"broker_rank":3,"jobspec":{"resources":[{"type":"slot","count":2,
            "label":"task","with":[{"type":"core","count":1}]}],"tasks":[{"command":["/bin/hostname"],"slot":"task",
            "count":{"per_slot":1}}],"attributes":{"system":{"duration":0}},"version":1},"R":{"version":1,"execution":
            {"R_lite":[{"rank":"3","children":{"core":"4-5","gpu":"1"}}],"nodelist":["n7"]}}}"#;
        let info = JobInfo::from_json(text, JobId(6_731_191_091_817_518)).unwrap();
        let scope = Scope {
            info: &info,
            shell_rank: 0,
            task: Some((1, 1)),
            tmpdir: "/t",
        };
        for (template, expected) in [
            ("plain", "plain"),
            ("{{id.dec}}-{{jobid.f58plain}}", "6731191091817518-fuZZybuNNy"),
            ("{{name}}.{{taskid}}.{{task.index}}", "hostname.1.1"),
            (
                "{{node.name}}{{node.id}} {{node.broker_rank}} {{node.cores}} {{node.ncores}}",
                "n70 3 4-5 2",
            ),
            ("{{nnodes}}/{{size}} {{tmpdir}} {{nope}}", "1/2 /t {{nope}}"),
        ] {
            assert_eq!(scope.expand(template), expected);
        }
        let job_scope = Scope { task: None, ..scope };
        assert_eq!(job_scope.expand("{{taskid}}"), "{{taskid}}");
        assert!(is_local("a{{task.id}}") && is_local("{{node.name}}") && !is_local("{{id}}{{name}}"));
    }
}
