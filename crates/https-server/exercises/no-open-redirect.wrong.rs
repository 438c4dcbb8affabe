// caught by: redirect::
    /// 308, which keeps the method and the body, to the same path and query.
    pub fn to_https(&self, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
        // The mistake: the host that the client has written.
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).ok_or(Error::NoHost)?;
        let place = format!("https://{host}");
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        // `//evil.example` and `?to=//evil.example` stay what they are: a path and a query behind our own name.
        let location =
            HeaderValue::try_from(format!("{place}{path}")).map_err(|_| Error::NoHost)?;
        Ok((StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response())
    }
