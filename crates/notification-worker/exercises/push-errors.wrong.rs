// caught by: push::
    /// The error code decides, and where there is none the status: a proxy on the way has no codes.
    fn of(answer: &Answer) -> Self {
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
        let FcmError { status, message, details } = problem.error;
        let code = details.into_iter().map(|detail| detail.error_code).find(|code| !code.is_empty());
        let code = code.unwrap_or(status);
        let words = format!("{} {code:.50} {message:.200}", answer.status).replace('\0', "");
        match code.as_str() {
            "UNREGISTERED" | "SENDER_ID_MISMATCH" => Self::Unregistered,
            "QUOTA_EXCEEDED" | "UNAVAILABLE" | "INTERNAL" | "THIRD_PARTY_AUTH_ERROR" => {
                Self::Later(words, answer.retry_after)
            }
            // The mistake: what is not in the manual is final. A proxy's 502 has no code, and loses the job.
            _ => Self::Invalid(words),
        }
    }
