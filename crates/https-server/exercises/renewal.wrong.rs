// caught by: rotation
impl ResolvesServerCert for Certificates {
    /// Asked once in each full handshake. A resumed one and an open connection need no certificate any more.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Certificates {
    /// Loads the first pair. An error is a reason not to start.
    pub fn open(files: Files, name: ServerName<'static>) -> Result<Self, Unusable> {
        let current = RwLock::new(Arc::new(load(&files, &name)?));
        Ok(Self { files, name, current })
    }

    /// Loads the pair again. If it is not good, the old one stays.
    pub fn reload(&self) -> Result<(), Unusable> {
        // Read before the lock is taken, so that no handshake waits for the disk.
        let renewed = Arc::new(load(&self.files, &self.name)?);
        // The mistake: it is checked, and what is served was copied at the start.
        drop(renewed);
        Ok(())
    }
}
