//! What does `[access]` say: who may connect, and with which roles? (RFC 12; flux-config-access(5))

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::msg::role;
use serde_json::{Map, Value};

/// The checked table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// Others than the instance owner may connect.
    pub(super) allow_guest_user: bool,
    /// User root has the owner's role.
    pub(super) allow_root_owner: bool,
    /// Users and groups that have the role `admin`, by number.
    admin_users: Vec<u32>,
    admin_groups: Vec<u32>,
    /// Names that this machine does not know: they are logged and passed over.
    pub(super) unknown: Vec<String>,
}

/// How names become numbers.
pub(super) trait Names {
    /// Returns the number of a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// Returns the number of a group.
    fn group(&self, name: &str) -> Option<u32>;
}

/// The machine's user database.
#[derive(Debug)]
pub(super) struct System;

impl Names for System {
    fn user(&self, name: &str) -> Option<u32> {
        nix::unistd::User::from_name(name)
            .ok()?
            .map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        nix::unistd::Group::from_name(name)
            .ok()?
            .map(|group| group.gid.as_raw())
    }
}

fn bad(text: impl std::fmt::Display) -> RpcError {
    RpcError::new(
        errno::EINVAL,
        format!("error parsing [access] configuration: {text}"),
    )
}

fn table<'v>(value: &'v Value, key: &str) -> Result<&'v Map<String, Value>, RpcError> {
    value
        .as_object()
        .ok_or_else(|| bad(format_args!("{key}: expected a table, got {value}")))
}

impl Access {
    /// Reads the table of a configuration object. A role's names are looked up here, not when somebody connects: a slow
    /// name service then delays a reload, not every client.
    ///
    /// # Errors
    /// EINVAL with the key and what is wrong with it.
    pub(super) fn read(config: &Value, names: &impl Names) -> Result<Self, RpcError> {
        let mut access = Access::default();
        let Some(value) = config.get("access") else {
            return Ok(access);
        };
        for (key, value) in table(value, "access")? {
            let flag = || {
                value
                    .as_bool()
                    .ok_or_else(|| bad(format_args!("access.{key}: expected true or false, got {value}")))
            };
            match key.as_str() {
                "allow-guest-user" => access.allow_guest_user = flag()?,
                "allow-root-owner" => access.allow_root_owner = flag()?,
                // job-list's
                "private-mode" => drop(flag()?),
                "roles" => access.read_roles(value, names)?,
                _ => {
                    return Err(bad(format_args!(
                        "access.{key}: unknown key (known: allow-guest-user, allow-root-owner, private-mode, roles)"
                    )));
                }
            }
        }
        Ok(access)
    }

    fn read_roles(&mut self, roles: &Value, names: &impl Names) -> Result<(), RpcError> {
        for (name, role) in table(roles, "access.roles")? {
            if name != "admin" {
                return Err(bad(format_args!(
                    "access.roles.{name}: unknown role (known: admin)"
                )));
            }
            for (key, list) in table(role, "access.roles.admin")? {
                self.read_admin(key, list, names)?;
            }
        }
        Ok(())
    }

    fn read_admin(&mut self, key: &str, list: &Value, names: &impl Names) -> Result<(), RpcError> {
        let list = list
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let Some(list) = list else {
            return Err(bad(format_args!(
                "access.roles.admin.{key}: expected an array of names"
            )));
        };
        for name in list {
            let (id, ids) = match key {
                "users" => (names.user(name), &mut self.admin_users),
                "groups" => (names.group(name), &mut self.admin_groups),
                _ => {
                    return Err(bad(format_args!(
                        "access.roles.admin.{key}: unknown key (known: users, groups)"
                    )));
                }
            };
            match id {
                Some(id) => ids.push(id),
                None => self.unknown.push(format!("access.roles.admin.{key}: {name}")),
            }
        }
        Ok(())
    }

    /// Returns the roles of a connecting process; `groups`, its groups, are asked for only when a role needs them.
    pub(super) fn roles(&self, owner: u32, userid: u32, groups: impl FnOnce() -> Vec<u32>) -> u32 {
        if userid == owner || (userid == 0 && self.allow_root_owner) {
            return role::OWNER;
        }
        if !self.allow_guest_user {
            return role::NONE;
        }
        let by_group = || groups().iter().any(|gid| self.admin_groups.contains(gid));
        if self.admin_users.contains(&userid) || (!self.admin_groups.is_empty() && by_group()) {
            role::USER | role::ADMIN
        } else {
            role::USER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Known;

    impl Names for Known {
        fn user(&self, name: &str) -> Option<u32> {
            (name == "alice").then_some(5)
        }
        fn group(&self, name: &str) -> Option<u32> {
            (name == "staff").then_some(50)
        }
    }

    const OWNER: u32 = 1000;

    fn read(access: Value) -> Result<Access, RpcError> {
        Access::read(&json!({ "access": access }), &Known)
    }

    #[test]
    fn roles_by_user_and_group() {
        let nobody = Access::read(&json!({}), &Known).unwrap();
        let guests = read(json!({"allow-guest-user": true})).unwrap();
        let root = read(json!({"allow-root-owner": true})).unwrap();
        let admins = read(json!({"allow-guest-user": true, "private-mode": true,
            "roles": {"admin": {"users": ["alice", "eve"], "groups": ["staff"]}}}))
        .unwrap();
        assert_eq!(admins.unknown, ["access.roles.admin.users: eve"]);
        let only = [
            ("nobody", &nobody),
            ("guests", &guests),
            ("root", &root),
            ("admins", &admins),
        ];
        // (userid, groups) and the mask in each configuration
        for (userid, groups, masks) in [
            (OWNER, vec![], [role::OWNER; 4]),
            (
                0,
                vec![50],
                [0, role::USER, role::OWNER, role::USER | role::ADMIN],
            ),
            (5, vec![], [0, role::USER, 0, role::USER | role::ADMIN]),
            (6, vec![50], [0, role::USER, 0, role::USER | role::ADMIN]),
            (6, vec![51], [0, role::USER, 0, role::USER]),
        ] {
            for ((name, access), mask) in only.iter().zip(masks) {
                let seen = access.roles(OWNER, userid, || groups.clone());
                assert_eq!(seen, mask, "{userid} of {groups:?} with {name}");
            }
        }
        // nobody's groups are asked for where no role needs them
        guests.roles(OWNER, 7, || panic!("not needed"));
        admins.roles(OWNER, OWNER, || panic!("not needed"));
    }

    #[test]
    fn mistakes_are_named() {
        for (table, text) in [
            (json!(1), "access: expected a table, got 1"),
            (
                json!({"allow-guest-user": 1}),
                "access.allow-guest-user: expected true or false, got 1",
            ),
            (
                json!({"private-mode": "yes"}),
                "access.private-mode: expected true or false, got \"yes\"",
            ),
            (json!({"allow-guests": true}), "access.allow-guests: unknown key"),
            (json!({"roles": {"boss": {}}}), "access.roles.boss: unknown role"),
            (
                json!({"roles": {"admin": {"users": "alice"}}}),
                "access.roles.admin.users: expected an array of names",
            ),
            (
                json!({"roles": {"admin": {"hosts": ["x"]}}}),
                "access.roles.admin.hosts: unknown key",
            ),
        ] {
            let err = read(table).unwrap_err();
            assert_eq!(err.errnum, errno::EINVAL);
            let begin = format!("error parsing [access] configuration: {text}");
            assert!(err.text.starts_with(&begin), "{}", err.text);
        }
    }
}
