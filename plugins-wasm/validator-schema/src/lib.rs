//! Validator `schema`: a jobspec must meet a JSON Schema: that of `--schema=FILE` (`[ingest.validator] args`, read by the broker), or
//! `[ingest.validator.schema]`, or a built-in one of RFC 25.

mod check;
mod schema;

use flux_policy_sdk::{Host, Job, Refusal, Validator};
use serde_json::Value;

use schema::Schema;

flux_policy_sdk::export_validator!(SchemaValidator);

/// Version 1 of the jobspec (RFC 25).
const JOBSPEC_V1: &str = include_str!("../jobspec.json");

/// The policy.
#[derive(Debug)]
pub struct SchemaValidator {
    schema: Schema,
}

impl Validator for SchemaValidator {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let args: Value = serde_json::from_str(&host.args()).unwrap_or_default();
        // the broker has put the file's content in the place of its name
        let mut given = args
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|arg| Some((arg.get("schema")?, arg.get("file")?)));
        let (text, origin) = match (given.next_back(), host.config("ingest.validator.schema")) {
            (Some((schema, file)), _) => (schema.to_string(), file.as_str().unwrap_or("--schema").to_owned()),
            (None, Some(table)) => (table, "ingest.validator.schema".to_owned()),
            (None, None) => (JOBSPEC_V1.to_owned(), "the built-in schema".to_owned()),
        };
        let read = serde_json::from_str(&text).map_err(|err| err.to_string());
        let schema = read.and_then(Schema::new);
        let schema = schema.map_err(|err| Refusal::invalid(format!("{origin}: {err}")))?;
        Ok(SchemaValidator { schema })
    }

    fn validate(&mut self, _: &dyn Host, job: &dyn Job) -> Result<(), Refusal> {
        let jobspec: Value = serde_json::from_str(&job.jobspec())
            .map_err(|err| Refusal::invalid(format!("jobspec: {err}")))?;
        check::check(&self.schema, &jobspec).map_err(Refusal::invalid)
    }
}

#[cfg(test)]
mod tests;
