// caught by: onion
/// The calls with all layers around them.
pub fn wrap(calls: Router, settings: &Settings, seen: (Recent, Metrics), others: Others) -> Router {
    let (recent, metrics) = seen;
    let mut service = around(&from_fn(context::known), Inner::new(calls));
    // The mistake: `app.use` runs what was added first, and this runs what was added last.
    for name in &settings.stack {
        let layer = layer(*name, settings, &metrics, service);
        service = probe(*name, layer.unwrap_or_else(|inner| others(*name, settings, inner)));
    }
    Router::new().fallback_service(record(recent, service))
}
