//! Login: a password is verified, which is slow on purpose, and a session begins.

use souk_proto_user::v1::LoginRequest;

use super::Scenario;
use crate::load::{Call, CallError, Calls};
use crate::market::Market;
use crate::souk::{Souk, index};

/// See the module. Each answer is looked at when it comes.
pub(crate) struct Login {
    pub(crate) souk: Souk,
    pub(crate) market: Market,
}

impl Calls for Login {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        let customer = &self.market.customers[index(nth, self.market.customers.len())];
        let request = LoginRequest { email: customer.email.clone(), password: self.market.password.clone() };
        let answer = self.souk.auth(nth).login(self.souk.request(None, request)).await?.into_inner();
        match (answer.user, answer.tokens) {
            (Some(user), Some(_)) if user.user_id == customer.user_id => Ok(()),
            _ => Err(CallError::Wrong("somebody else was logged in")),
        }
    }
}

impl Scenario for Login {
    fn name(&self) -> String {
        "login".to_owned()
    }
}
