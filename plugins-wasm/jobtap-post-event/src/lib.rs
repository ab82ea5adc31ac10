//! `flux post-job-event`: the instance owner posts an event to a job's eventlog (`job-manager.post-event.post`).
//!
//! What an event of RFC 21 does to the job, and whether the job's state allows it, is checked by the job manager.

use flux_policy_sdk::json::Object;
use flux_policy_sdk::{Jobtap, JobtapHost, Refusal, Request, export_jobtap, json};

/// Malformed message.
const EPROTO: u32 = 71;

/// The plugin.
#[derive(Debug)]
pub struct PostEvent;

impl Jobtap for PostEvent {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(PostEvent)
    }

    fn topics(&self) -> Vec<String> {
        vec!["service.post".to_owned()]
    }

    fn request(&mut self, host: &dyn JobtapHost, request: &Request<'_>) -> Result<String, Refusal> {
        let bad = |what: &str| Refusal {
            errnum: EPROTO,
            text: format!("post-event.post: {what}"),
        };
        let payload =
            Object::parse(request.payload).ok_or_else(|| bad("the payload must be a JSON object"))?;
        let id = payload.get("id").and_then(|id| id.parse::<u64>().ok());
        let id = id.ok_or_else(|| bad("id must be a job id"))?;
        let name = payload.get("name").and_then(json::string);
        let name = name.ok_or_else(|| bad("name must be a string"))?;
        let context = match payload.get("context") {
            None | Some("null") => "",
            Some(context) if context.starts_with('{') => context,
            Some(_) => return Err(bad("context must be an object")),
        };
        host.post(id, &name, context);
        Ok(String::new())
    }
}

export_jobtap!(PostEvent);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::FakeHost;

    #[test]
    fn posts_what_it_is_told() {
        let host = FakeHost::default();
        let mut plugin = PostEvent::configure(&host).unwrap();
        let mut ask = |payload: &str| {
            let request = Request {
                method: "post",
                payload,
                userid: 0,
                rolemask: 1,
            };
            plugin.request(&host, &request)
        };
        assert_eq!(
            ask(r#"{"id":7,"name":"foo","context":{"a":1}}"#),
            Ok(String::new())
        );
        assert_eq!(ask(r#"{"id":7,"name":"bar"}"#), Ok(String::new()));
        assert_eq!(host.take_wishes(), [r#"post 7 foo {"a":1}"#, "post 7 bar "]);
        for bad in [
            "",
            "{}",
            r#"{"id":"x","name":"a"}"#,
            r#"{"id":1,"name":2}"#,
            r#"{"id":1,"name":"a","context":[]}"#,
        ] {
            assert_eq!(ask(bad).unwrap_err().errnum, EPROTO, "{bad}");
        }
        assert!(host.take_wishes().is_empty());
    }
}
