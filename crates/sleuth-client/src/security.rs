use sleuth_core::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::{ClientError, ClientSettings};

/// How a client knows its server, and is known by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Authorities that vouch for the server, as PEM. Needed for `https`: the system's own are not
    /// looked at.
    pub authorities: Option<String>,
    /// The name in the server's certificate, where it is another than the URL's host.
    pub server_name: Option<String>,
    /// The client's own certificate, where the server asks for one.
    pub certificate: Option<ClientCertificate>,
    /// A token that goes with every call. Over `http` anybody on the way can read it.
    pub token: Option<Secret>,
}

/// A client's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its chain, as PEM.
    pub chain: String,
    /// Its private key, as PEM.
    pub key: Secret,
}

/// Names the tenant on whose behalf a router calls.
pub const TENANT_HEADER: &str = "sleuth-tenant";

/// A channel that sends the token.
pub(crate) type Transport = InterceptedService<Channel, Bearer>;

/// Puts the token into every call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bearer {
    /// Marked as sensitive: it is not printed.
    header: Option<MetadataValue<Ascii>>,
    /// On whose behalf calls are made.
    tenant: Option<MetadataValue<Ascii>>,
}

// === impl Security ===

impl Security {
    /// A connection to a URL.
    pub(crate) async fn connect(
        &self,
        url: impl Into<String>,
        settings: &ClientSettings,
    ) -> Result<Channel, ClientError> {
        let endpoint = Endpoint::from_shared(url.into()).map_err(ClientError::Url)?;
        self.apply(endpoint)?
            .connect_timeout(settings.connect_timeout)
            .http2_keep_alive_interval(settings.keepalive_interval)
            .keep_alive_timeout(settings.keepalive_timeout)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(ClientError::Connect)
    }

    fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, ClientError> {
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        if let Some(authorities) = &self.authorities {
            tls = tls.ca_certificate(Certificate::from_pem(authorities));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        if let Some(ClientCertificate { chain, key }) = &self.certificate {
            tls = tls.identity(Identity::from_pem(chain, key.reveal()));
        }
        endpoint.tls_config(tls).map_err(ClientError::Connect)
    }

    pub(crate) fn bearer(&self) -> Result<Bearer, ClientError> {
        let header = self.token.as_ref().map(|token| {
            let mut header = MetadataValue::try_from(format!("Bearer {}", token.reveal()))
                .map_err(|_| ClientError::Token)?;
            header.set_sensitive(true);
            Ok::<_, ClientError>(header)
        });
        Ok(Bearer { header: header.transpose()?, tenant: None })
    }
}

// === impl Bearer ===

impl Bearer {
    /// For calls on behalf of a tenant.
    pub(crate) fn of_tenant(&self, tenant: &str) -> Result<Self, ClientError> {
        let tenant = MetadataValue::try_from(tenant).map_err(|_| ClientError::Tenant)?;
        Ok(Self { header: self.header.clone(), tenant: Some(tenant) })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.clone());
        }
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert(TENANT_HEADER, tenant.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_and_not_shown() {
        let security = Security { token: Some(Secret::new("hunter2")), ..Security::default() };
        let mut bearer = security.bearer().unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer hunter2");
        assert!(!format!("{security:?} {bearer:?} {request:?}").contains("hunter2"));
        let bad = Security { token: Some(Secret::new("a\nb")), ..Security::default() };
        assert!(matches!(bad.bearer(), Err(ClientError::Token)));
    }
}
