//! GetUser: everybody reads themselves.

use souk_proto_user::v1::GetUserRequest;

use super::Scenario;
use crate::load::{Call, CallError, Calls};
use crate::market::Market;
use crate::souk::{Souk, index};

/// See the module. Each answer is looked at when it comes.
pub(crate) struct GetUser {
    pub(crate) souk: Souk,
    pub(crate) market: Market,
}

impl Calls for GetUser {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        let customer = &self.market.customers[index(nth, self.market.customers.len())];
        let request = GetUserRequest { user_id: customer.user_id.clone() };
        let answer = self.souk.users(nth).get_user(self.souk.request(Some(&customer.token), request)).await?;
        match answer.into_inner().user {
            Some(user) if user.user_id == customer.user_id => Ok(()),
            _ => Err(CallError::Wrong("the answer is about somebody else")),
        }
    }
}

impl Scenario for GetUser {
    fn name(&self) -> String {
        "get-user".to_owned()
    }
}
