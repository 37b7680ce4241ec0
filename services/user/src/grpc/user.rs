//! UserService.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use souk_interceptors::accept;
use souk_proto_user::v1 as pb;
use souk_proto_user::v1::user_service_server::UserService;
use tonic::{Request, Response, Status};

use crate::domain::command::GetMe;
use crate::ops::{self, App};
use crate::wire::user_page_token;

/// See the module.
#[derive(Clone, Debug)]
pub struct UserGrpc {
    app: App,
}

impl UserGrpc {
    /// The service over `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl UserService for UserGrpc {
    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let (caller, query) = accept(request)?;
        let user = ops::get_user(&self.app, &caller, query).await?;
        Ok(Response::new(pb::GetUserResponse { user: Some((&user).into()) }))
    }

    async fn get_me(&self, request: Request<pb::GetMeRequest>) -> Result<Response<pb::GetMeResponse>, Status> {
        let (caller, GetMe) = accept(request)?;
        let user = ops::get_me(&self.app, &caller).await?;
        Ok(Response::new(pb::GetMeResponse { user: Some((&user).into()) }))
    }

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::UpdateUserResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::update_user(&self.app, &caller, command).await?;
        Ok(answer.into_response(|user| pb::UpdateUserResponse { user: Some((&user).into()) }))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let (_, query) = accept(request)?;
        let (page, more) = ops::list_users(&self.app, query).await?;
        let next = page.last().filter(|_| more).map(|last| user_page_token(last.id));
        Ok(Response::new(pb::ListUsersResponse {
            users: page.iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    type StreamUsersStream = Pin<Box<dyn Stream<Item = Result<pb::StreamUsersResponse, Status>> + Send>>;

    async fn stream_users(
        &self,
        request: Request<pb::StreamUsersRequest>,
    ) -> Result<Response<Self::StreamUsersStream>, Status> {
        let (_, query) = accept(request)?;
        let users = ops::stream_users(self.app.clone(), query);
        let messages = users.map(|user| Ok(pb::StreamUsersResponse { user: Some((&user?).into()) }));
        Ok(Response::new(messages.boxed()))
    }

    async fn set_roles(&self, request: Request<pb::SetRolesRequest>) -> Result<Response<pb::SetRolesResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::set_roles(&self.app, &caller, command).await?;
        Ok(answer.into_response(|user| pb::SetRolesResponse { user: Some((&user).into()) }))
    }
}
