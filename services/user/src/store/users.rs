//! Users, their roles and password hashes.

use chrono::{DateTime, Utc};
use souk_db::{Engine, Error, Tx, all_touched, many, sql};
use uuid::Uuid;

use super::{corrupt, hash_of};
use crate::domain::{Email, PasswordHash, Role, Roles, User};

/// A user with what only the service itself may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: User,
    /// The hash of the password.
    pub password_hash: PasswordHash,
    /// The call that created it.
    pub origin: Origin,
}

/// The call that created an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its key.
    pub request_id: Uuid,
    /// What it asked for, without the password.
    pub fingerprint: [u8; 32],
}

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: Uuid,
    email: String,
    display_name: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    roles: Option<String>,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    #[sqlx(flatten)]
    user: UserRow,
    password_hash: String,
    request_id: Uuid,
    fingerprint: Vec<u8>,
}

/// What a [`UserRow`] is made of: no hash of a password leaves the table where nobody asks for one.
const USER: &str = "u.user_id, u.email, u.display_name, u.version, u.created_at, u.updated_at,
         (SELECT string_agg(r.role, ' ') FROM user_roles r WHERE r.user_id = u.user_id) AS roles";

impl TryFrom<UserRow> for User {
    type Error = Error;

    fn try_from(row: UserRow) -> Result<Self, Error> {
        let names = row.roles.unwrap_or_default();
        let roles: Option<Vec<Role>> = names.split_ascii_whitespace().map(Role::parse).collect();
        Ok(Self {
            id: row.user_id,
            email: Email::parse(&row.email).map_err(|_| corrupt("users", "email"))?,
            display_name: row.display_name,
            roles: roles.and_then(Roles::new).ok_or_else(|| corrupt("user_roles", "roles"))?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl TryFrom<AccountRow> for Account {
    type Error = Error;

    fn try_from(row: AccountRow) -> Result<Self, Error> {
        let origin = Origin { request_id: row.request_id, fingerprint: hash_of(row.fingerprint, "users")? };
        Ok(Self { user: row.user.try_into()?, password_hash: PasswordHash::stored(row.password_hash), origin })
    }
}

/// The account of that address.
pub async fn account_by_email(tx: &mut Tx, email: &Email) -> Result<Option<Account>, Error> {
    let select =
        sql(format!("SELECT {USER}, u.password_hash, u.request_id, u.fingerprint FROM users u WHERE u.email = $1"));
    select.bind(email.as_str()).fetch_optional::<AccountRow>(tx).await?.map(Account::try_from).transpose()
}

/// The user.
pub async fn user(tx: &mut Tx, id: Uuid) -> Result<Option<User>, Error> {
    let select = sql(format!("SELECT {USER} FROM users u WHERE u.user_id = $1"));
    select.bind(id).fetch_optional::<UserRow>(tx).await?.map(User::try_from).transpose()
}

/// The user, locked until the transaction ends.
pub async fn user_to_change(tx: &mut Tx, id: Uuid) -> Result<Option<User>, Error> {
    if tx.engine() == Engine::Postgres {
        // By itself, before anything is read: after a wait for the lock the roles would be those from before it.
        sql("SELECT user_id FROM users WHERE user_id = $1 FOR UPDATE").bind(id).fetch_optional::<(Uuid,)>(tx).await?;
    }
    user(tx, id).await
}

/// Every administrator, locked until the transaction ends: of two who resign at once, the second sees that the first has.
pub async fn administrators_to_change(tx: &mut Tx) -> Result<Vec<Uuid>, Error> {
    let text = match tx.engine() {
        Engine::Sqlite => "SELECT user_id FROM user_roles WHERE role = $1 ORDER BY user_id",
        Engine::Postgres => "SELECT user_id FROM user_roles WHERE role = $1 ORDER BY user_id FOR UPDATE",
    };
    let rows = sql(text).bind(Role::Admin.name()).fetch_all::<(Uuid,)>(tx).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Users in the order of their ids, which is that of their registration.
pub async fn list_users(tx: &mut Tx, after: Option<Uuid>, limit: i64) -> Result<Vec<User>, Error> {
    let statement = match after {
        None => sql(format!("SELECT {USER} FROM users u ORDER BY u.user_id LIMIT $1")).bind(limit),
        Some(after) => {
            let text = format!("SELECT {USER} FROM users u WHERE u.user_id > $1 ORDER BY u.user_id LIMIT $2");
            sql(text).bind(after).bind(limit)
        }
    };
    statement.fetch_all::<UserRow>(tx).await?.into_iter().map(User::try_from).collect()
}

/// Adds an account; `false`: the address is taken.
pub async fn insert_account(tx: &mut Tx, account: &Account) -> Result<bool, Error> {
    let Account { user, password_hash, origin } = account;
    let inserted =
        sql("INSERT INTO users (user_id, email, display_name, password_hash, version, created_at, updated_at,
             request_id, fingerprint) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (email) DO NOTHING")
        .bind(user.id)
        .bind(user.email.as_str())
        .bind(&user.display_name)
        .bind(password_hash.as_str())
        .bind(user.version)
        .bind(user.created_at)
        .bind(user.updated_at)
        .bind(origin.request_id)
        .bind(origin.fingerprint)
        .execute(tx)
        .await?;
    if inserted == 0 {
        return Ok(false);
    }
    insert_roles(tx, user).await?;
    Ok(true)
}

/// Writes the user as it is now over the version before; a conflict, if that is not what is there.
pub async fn save_user(tx: &mut Tx, user: &User) -> Result<(), Error> {
    let rows =
        sql("UPDATE users SET display_name = $1, version = $2, updated_at = $3 WHERE user_id = $4 AND version = $5")
            .bind(&user.display_name)
            .bind(user.version)
            .bind(user.updated_at)
            .bind(user.id)
            .bind(user.version - 1)
            .execute(tx)
            .await?;
    all_touched(rows, 1, "a user")?;
    // Only what differs: a role that stays must stay visible to whoever waits for its row.
    for role in Role::ALL.into_iter().filter(|role| !user.roles.contains(*role)) {
        let delete = sql("DELETE FROM user_roles WHERE role = $1 AND user_id = $2");
        delete.bind(role.name()).bind(user.id).execute(tx).await?;
    }
    insert_roles(tx, user).await
}

async fn insert_roles(tx: &mut Tx, user: &User) -> Result<(), Error> {
    let roles: Vec<Role> = user.roles.iter().collect();
    let insert = "INSERT INTO user_roles (role, user_id) VALUES {rows} ON CONFLICT DO NOTHING";
    many(insert, &roles, |row, role| row.bind(role.name()).bind(user.id)).execute(tx).await.map(drop)
}

/// Puts a new hash of the same password in place of `old`. Nothing happens if that is not there any more.
pub async fn update_password_hash(tx: &mut Tx, id: Uuid, old: &PasswordHash, new: &PasswordHash) -> Result<(), Error> {
    sql("UPDATE users SET password_hash = $1 WHERE user_id = $2 AND password_hash = $3")
        .bind(new.as_str())
        .bind(id)
        .bind(old.as_str())
        .execute(tx)
        .await?;
    Ok(())
}
