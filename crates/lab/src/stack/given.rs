//! Which servers did the reader give us? Those whose URL is in the environment, or in `.env`.

use std::{collections::HashMap, sync::LazyLock};

use anyhow::{Context, bail};

use super::{home, service::Service};

/// The variables of `.env`, read once. A variable of the environment overrides the file.
static DOTENV: LazyLock<Result<HashMap<String, String>, String>> = LazyLock::new(|| {
    let path = home::workspace().join(".env");
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let read = || dotenvy::from_path_iter(&path)?.collect::<dotenvy::Result<_>>();
    read().map_err(|error| format!("{}: {error}", path.display()))
});

/// The URL that was given for this server, if one was.
pub fn url(service: Service) -> anyhow::Result<Option<String>> {
    let variable = service.variable();
    let from_file = || match DOTENV.as_ref() {
        Ok(variables) => Ok(variables.get(variable).cloned()),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    };
    let url = match std::env::var(variable) {
        Ok(url) => Some(url),
        Err(_) => from_file()?,
    };
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    let parsed = url::Url::parse(&url).with_context(|| format!("{variable} is not a URL"))?;
    let schemes = service.about().schemes;
    if !schemes.contains(&parsed.scheme()) {
        bail!("{variable} should begin with {}://, not {}://", schemes[0], parsed.scheme());
    }
    Ok(Some(url))
}
