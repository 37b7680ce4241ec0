//! AuthService.

use souk_interceptors::accept;
use souk_proto_user::v1 as pb;
use souk_proto_user::v1::auth_service_server::AuthService;
use tonic::{Request, Response, Status};

use crate::domain::command::GetJwks;
use crate::ops::{self, App};
use crate::wire::{jwks, service_token, token_pair};

/// See the module.
#[derive(Clone, Debug)]
pub struct AuthGrpc {
    app: App,
}

impl AuthGrpc {
    /// The service over `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl AuthService for AuthGrpc {
    async fn register(&self, request: Request<pb::RegisterRequest>) -> Result<Response<pb::RegisterResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::register(&self.app, &caller, command).await?;
        Ok(answer.into_response(|user| pb::RegisterResponse { user: Some((&user).into()) }))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        let (_, command) = accept(request)?;
        let (tokens, user) = ops::login(&self.app, command).await?;
        Ok(Response::new(pb::LoginResponse { tokens: Some(token_pair(tokens)), user: Some((&user).into()) }))
    }

    async fn refresh_token(
        &self,
        request: Request<pb::RefreshTokenRequest>,
    ) -> Result<Response<pb::RefreshTokenResponse>, Status> {
        let (_, command) = accept(request)?;
        let tokens = ops::refresh_token(&self.app, command).await?;
        Ok(Response::new(pb::RefreshTokenResponse { tokens: Some(token_pair(tokens)) }))
    }

    async fn logout(&self, request: Request<pb::LogoutRequest>) -> Result<Response<pb::LogoutResponse>, Status> {
        let (_, command) = accept(request)?;
        let answer = ops::logout(&self.app, command).await?;
        Ok(answer.into_response(|()| pb::LogoutResponse {}))
    }

    async fn issue_service_token(
        &self,
        request: Request<pb::IssueServiceTokenRequest>,
    ) -> Result<Response<pb::IssueServiceTokenResponse>, Status> {
        let (_, command) = accept(request)?;
        let token = ops::issue_service_token(&self.app, &command)?;
        Ok(Response::new(service_token(token)))
    }

    async fn get_jwks(&self, request: Request<pb::GetJwksRequest>) -> Result<Response<pb::GetJwksResponse>, Status> {
        let (_, GetJwks) = accept(request)?;
        Ok(Response::new(jwks(self.app.issuer.public_keys())))
    }
}
