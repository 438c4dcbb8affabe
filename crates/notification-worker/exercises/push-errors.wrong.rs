// caught by: push::
    /// The error code decides, and where there is none the status: a proxy on the way has no codes.
    fn of(status: u16, retry_after: Option<u64>, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let (error, details) = (&problem["error"], problem["error"]["details"].as_array());
        let codes = details.into_iter().flatten().filter_map(|detail| detail["errorCode"].as_str());
        let code = codes.chain(error["status"].as_str()).next().unwrap_or_default();
        let message = error["message"].as_str().unwrap_or_default();
        // PostgreSQL's text holds no NUL.
        let words = format!("{status} {code:.50} {message:.200}").replace('\0', "");
        match code {
            // Registered with another sender: never ours again either.
            "UNREGISTERED" | "SENDER_ID_MISMATCH" => Self::Unregistered,
            "INVALID_ARGUMENT" => Self::Invalid(words),
            "QUOTA_EXCEEDED" | "UNAVAILABLE" | "INTERNAL" | "THIRD_PARTY_AUTH_ERROR" => {
                Self::Later(words, retry_after)
            }
            // The mistake: what is not in the manual is final. A proxy's 502 has no code, and loses the job.
            _ => Self::Invalid(words),
        }
    }
