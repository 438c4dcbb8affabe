//! What can go wrong: at the start, for whoever runs the server; and later, for a client?

use std::io;

use axum::{
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};
use edge::Problem;
use tokio_rustls::rustls;

use crate::certificate::Unusable;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate or its key cannot be served.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// TLS cannot be set up like this.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The folder for the private authority and what it signs cannot be written.
    #[error("cannot keep a certificate in the home: {0}")]
    Home(#[from] io::Error),
}

/// Everything that a client may be told. What it displays is what the client may read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400: there is no `Host`, or two, or it is none.
    #[error("a request needs one header Host, with a name")]
    NoHost,
    /// 401: there is no cookie, or a bad one.
    #[error("log in first")]
    NotLoggedIn,
    /// 401: the user or the password is wrong. Which of them, nobody is told.
    #[error("the user or the password is wrong")]
    WrongPassword,
    /// 403: this came by plain HTTP, and may hold a secret. It has been sent, so a redirect comes too late.
    #[error(
        "this came in clear text, and anybody on the way could read it: change what was secret, and use {0}"
    )]
    InTheClear(String),
    /// 403: this is for machines that show a certificate in the handshake.
    #[error("this needs a client certificate with a DNS name in it")]
    NoClientCertificate,
    /// 404: there is no such path, or not for this client.
    #[error("there is nothing here")]
    NotFound,
    /// 409: the renewed certificate cannot be served. The old one stays.
    #[error("the old certificate stays: {0}")]
    NotReloaded(#[from] Unusable),
    /// 421: the request is for another host than the connection, or for one that we are not.
    #[error("this connection is not for the host that the request names")]
    Misdirected,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::NotLoggedIn | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::InTheClear(_) | Self::NoClientCertificate => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotReloaded(_) => StatusCode::CONFLICT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, problem) = (self.status(), Problem::new(self.status(), self.to_string()));
        if status == StatusCode::UNAUTHORIZED {
            return problem
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Session"))
                .into_response();
        }
        problem.into_response()
    }
}
