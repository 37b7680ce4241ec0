//! UserService on the wire.

use souk_proto_common::time::timestamp;
use souk_proto_common::v1::Reason;
use souk_proto_common::validation::{known_enum, page_size, required, uuid};
use souk_proto_common::{Check, FieldError, InvalidRequest, PageToken};
use souk_proto_user::v1 as pb;
use uuid::Uuid;

use super::{display_name, key};
use crate::domain::command::{GetMe, GetUser, Keyed, ListUsers, SetRoles, StreamUsers, UpdateUser};
use crate::domain::{Etag, Role, Roles, User};

const MUTABLE_PATHS: [&str; 1] = ["display_name"];
const IMMUTABLE_PATHS: [&str; 6] = ["user_id", "email", "roles", "etag", "create_time", "update_time"];

impl From<&User> for pb::User {
    fn from(user: &User) -> Self {
        Self {
            user_id: user.id.to_string(),
            email: user.email.as_str().to_owned(),
            display_name: user.display_name.clone(),
            roles: roles_on_wire(&user.roles),
            etag: user.etag().to_string(),
            create_time: Some(timestamp(user.created_at)),
            update_time: Some(timestamp(user.updated_at)),
        }
    }
}

/// Roles as a field of a message.
pub fn roles_on_wire(roles: &Roles) -> Vec<i32> {
    let on_wire = |role| match role {
        Role::Customer => pb::Role::Customer,
        Role::Staff => pb::Role::Staff,
        Role::Admin => pb::Role::Admin,
    };
    roles.iter().map(|role| on_wire(role).into()).collect()
}

impl TryFrom<pb::GetUserRequest> for GetUser {
    type Error = InvalidRequest;

    fn try_from(request: pb::GetUserRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let user_id = check.field("user_id", uuid(&request.user_id));
        check.finish(|| Some(Self { user_id: user_id? }))
    }
}

impl TryFrom<pb::GetMeRequest> for GetMe {
    type Error = InvalidRequest;

    fn try_from(_: pb::GetMeRequest) -> Result<Self, InvalidRequest> {
        Ok(Self)
    }
}

impl TryFrom<pb::UpdateUserRequest> for Keyed<UpdateUser> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::UpdateUserRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        check.mask(&paths, &MUTABLE_PATHS, &IMMUTABLE_PATHS);
        let user = check.field("user", required(request.user));
        let command = user.and_then(|user| {
            check.inside("user", |check| {
                let user_id = check.field("user_id", uuid(&user.user_id));
                let etag = check.field("etag", Etag::parse_if_set(&user.etag));
                let named = paths.iter().any(|path| path == "display_name");
                let display_name = check.field("display_name", named_only(named, || display_name(&user.display_name)));
                Some(UpdateUser { user_id: user_id?, etag: etag?, display_name: display_name? })
            })
        });
        check.finish(|| Some(Self { key: key?, command: command? }))
    }
}

/// A field that the mask does not name is not looked at.
fn named_only<T>(named: bool, parse: impl FnOnce() -> Result<T, FieldError>) -> Result<Option<T>, FieldError> {
    if named { parse().map(Some) } else { Ok(None) }
}

impl TryFrom<pb::SetRolesRequest> for Keyed<SetRoles> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::SetRolesRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let user_id = check.field("user_id", uuid(&request.user_id));
        let etag = check.field("etag", Etag::parse_if_set(&request.etag));
        let roles = roles(&mut check, &request.roles);
        check.finish(|| Some(Self { key: key?, command: SetRoles { user_id: user_id?, etag: etag?, roles: roles? } }))
    }
}

fn roles(check: &mut Check, values: &[i32]) -> Option<Roles> {
    if values.is_empty() {
        check.bad("roles", FieldError::required());
    }
    if values.len() > Role::ALL.len() {
        check.bad("roles", FieldError::new(Reason::TooMany, "must name each role once"));
        return None;
    }
    let role = |check: &mut Check, index: usize, value: i32| {
        let field = format!("roles[{index}]");
        if values[..index].contains(&value) {
            check.bad(&field, FieldError::new(Reason::Duplicate, "is named twice"));
        }
        match check.field(&field, known_enum(value))? {
            pb::Role::Unspecified => None,
            pb::Role::Customer => Some(Role::Customer),
            pb::Role::Staff => Some(Role::Staff),
            pb::Role::Admin => Some(Role::Admin),
        }
    };
    let parsed: Vec<Option<Role>> =
        values.iter().enumerate().map(|(index, value)| role(check, index, *value)).collect();
    Roles::new(parsed.into_iter().collect::<Option<Vec<Role>>>()?)
}

impl TryFrom<pb::ListUsersRequest> for ListUsers {
    type Error = InvalidRequest;

    fn try_from(request: pb::ListUsersRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let size = check.field("page_size", page_size(request.page_size));
        let after = check.field("page_token", after(&request.page_token));
        check.finish(|| Some(Self { size: size?, after: after? }))
    }
}

fn after(token: &str) -> Result<Option<Uuid>, FieldError> {
    let Some(token) = PageToken::parse(token, &pb::ListUsersRequest::default())? else { return Ok(None) };
    let invalid = |_| FieldError::new(Reason::InvalidPageToken, "must be a next_page_token of this list");
    Uuid::try_parse(&token.after).map(Some).map_err(invalid)
}

/// The token of the page after `last`.
pub fn user_page_token(last: Uuid) -> String {
    PageToken { after: last.to_string() }.encode(&pb::ListUsersRequest::default())
}

impl TryFrom<pb::StreamUsersRequest> for StreamUsers {
    type Error = InvalidRequest;

    fn try_from(request: pb::StreamUsersRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let given = !request.after_user_id.is_empty();
        let after = check.field("after_user_id", named_only(given, || uuid(&request.after_user_id)));
        check.finish(|| Some(Self { after: after? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn named(invalid: &InvalidRequest) -> Vec<(&str, Reason)> {
        invalid.violations().iter().map(|(field, error)| (field.as_str(), error.reason)).collect()
    }

    #[test]
    fn every_bad_path_of_a_mask_is_named() {
        let paths = ["email", "display_name", "nose", "display_name"].map(str::to_owned).to_vec();
        let user =
            pb::User { user_id: ID.into(), etag: "7".into(), display_name: "a\nb".into(), ..pb::User::default() };
        let update_mask = Some(pbjson_types::FieldMask { paths });
        let request = pb::UpdateUserRequest { request_id: String::new(), user: Some(user), update_mask };
        assert_eq!(
            named(&Keyed::<UpdateUser>::try_from(request).unwrap_err()),
            [
                ("request_id", Reason::Required),
                ("update_mask.paths[0]", Reason::Immutable),
                ("update_mask.paths[2]", Reason::UnknownFieldPath),
                ("update_mask.paths[3]", Reason::Duplicate),
                ("user.etag", Reason::InvalidFormat),
                ("user.display_name", Reason::InvalidFormat),
            ]
        );
    }

    #[test]
    fn roles_are_known_and_stand_once() {
        let request = |roles: &[i32]| pb::SetRolesRequest {
            request_id: ID.into(),
            user_id: ID.into(),
            roles: roles.to_vec(),
            etag: String::new(),
        };
        let parse = |roles| Keyed::<SetRoles>::try_from(request(roles));
        assert_eq!(named(&parse(&[]).unwrap_err()), [("roles", Reason::Required)]);
        assert_eq!(
            named(&parse(&[0, 2, 2]).unwrap_err()),
            [("roles[0]", Reason::InvalidEnum), ("roles[2]", Reason::Duplicate)]
        );
        assert_eq!(named(&parse(&[1; 1_000]).unwrap_err()), [("roles", Reason::TooMany)]);
        assert_eq!(parse(&[3, 1]).unwrap().command.roles, Roles::new([Role::Customer, Role::Admin]).unwrap());
    }

    #[test]
    fn a_page_token_is_read_back() {
        let id = Uuid::try_parse(ID).unwrap();
        assert_eq!(after(&user_page_token(id)), Ok(Some(id)));
        assert_eq!(after("x").unwrap_err().reason, Reason::InvalidPageToken);
    }
}
