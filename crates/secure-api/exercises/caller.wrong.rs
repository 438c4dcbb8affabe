// caught by: token::
/// Who shows this token, if it is to be believed.
pub fn caller(&self, token: &str) -> Result<Caller> {
    // The mistake: any JWT that our key has signed is an access token, also one that was made for something else.
    let token = decode::<Claims>(token, &self.verifies, &self.validation);
    let Claims { sub: user, customer, role, .. } =
        token.map_err(|_| Error::UNAUTHENTICATED)?.claims;
    Ok(Caller { user, customer, role })
}
