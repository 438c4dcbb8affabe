// caught by: caller::
/// What an answer says.
fn answered(call: Call, id: Uuid, status: StatusCode, _: bool, answer: &Value) -> Record {
    let detail = answer["detail"].as_str().unwrap_or("refused");
    if status.is_success() && answer["order_id"] == id.to_string() {
        Record::Done { call }
    } else if status.is_client_error() {
        // The mistake: any 4xx is a no. A proxy's 404 cancels orders, and a 408 one that was charged.
        Record::Refused { call, reason: tidy(detail) }
    } else {
        Record::Failed { call, outcome_unknown: true, reason: tidy(&format!("{status} {detail}")) }
    }
}
