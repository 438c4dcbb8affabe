// caught by: onion
/// The calls with all layers around them.
pub fn wrap(calls: Router, settings: &Settings, recent: Recent, metrics: &Metrics) -> Router {
    let mut service = around(&from_fn(context::known), Inner::new(calls));
    // The mistake: `app.use` runs what was added first, and this runs what was added last.
    for name in &settings.stack {
        service = probe(name.text(), layer(*name, settings, metrics, service));
    }
    Router::new().fallback_service(record(recent, service))
}
