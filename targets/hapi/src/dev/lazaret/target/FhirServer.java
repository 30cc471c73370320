package dev.lazaret.target;

import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.batch2.jobs.export.BulkDataExportProvider;
import ca.uhn.fhir.batch2.maintenance.JobMaintenanceServiceImpl;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.binstore.MemoryBinaryStorageSvcImpl;
import ca.uhn.fhir.jpa.binary.api.IBinaryStorageSvc;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.provider.ValueSetOperationProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.jpa.subscription.match.config.SubscriptionProcessorConfig;
import ca.uhn.fhir.jpa.subscription.match.deliver.email.IEmailSender;
import ca.uhn.fhir.jpa.subscription.submit.config.SubscriptionSubmitterConfig;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import jakarta.persistence.EntityManagerFactory;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.Properties;
import javax.sql.DataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.eclipse.jetty.server.ServerConnector;
import org.h2.jdbcx.JdbcConnectionPool;
import org.springframework.beans.factory.config.BeanPostProcessor;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/**
 * A HAPI FHIR JPA R4 server on embedded Jetty and an H2 database, wired from released HAPI jars.
 *
 * <p>Everything is configured by environment variables, named and explained in {@code targets/hapi/README.md}. It does
 * no authentication: it is a target for measurements, not a server for patients.
 */
public class FhirServer {

  private static String env(String k, String d) {
    String v = System.getenv(k);
    return v == null || v.isEmpty() ? d : v;
  }

  @Configuration
  @Import({
    JpaR4Config.class, HapiJpaConfig.class, ThreadPoolFactoryConfig.class,
    JpaBatch2Config.class, Batch2JobsConfig.class,
    SubscriptionChannelConfig.class, SubscriptionSubmitterConfig.class, SubscriptionProcessorConfig.class
  })
  public static class Config {
    @Bean JpaStorageSettings jpaStorageSettings() {
      JpaStorageSettings s = new JpaStorageSettings();
      s.setHibernateSearchIndexSearchParams(false);
      s.setHibernateSearchIndexFullText(false);
      s.setAllowExternalReferences(true);
      return s;
    }
    @Bean PartitionSettings partitionSettings() { return new PartitionSettings(); }
    @Bean SubscriptionSettings subscriptionSettings() { return new SubscriptionSettings(); }
    @Bean IEmailSender emailSender() { return d -> {}; }
    /** Bulk export moves on at each pass of the job maintenance; its minute is too long for a demo. */
    @Bean static BeanPostProcessor fasterJobs() {
      return new BeanPostProcessor() {
        @Override public Object postProcessBeforeInitialization(Object b, String n) {
          if (b instanceof JobMaintenanceServiceImpl) {
            ((JobMaintenanceServiceImpl) b).setScheduledJobFrequencyMillis(Long.parseLong(env("FHIR_JOB_MS", "2000")));
          }
          return b;
        }
      };
    }
    @Bean IBinaryStorageSvc binaryStorage() { return new MemoryBinaryStorageSvcImpl(); }
    /** Closed by us and not by H2's own hook, which would run beside ours and take it from under the last jobs. */
    @Bean(destroyMethod = "dispose") JdbcConnectionPool dataSource() {
      JdbcConnectionPool p = JdbcConnectionPool.create(
          env("FHIR_JDBC_URL", "jdbc:h2:file:/data/fhir;DB_CLOSE_ON_EXIT=FALSE"), "sa", "");
      p.setMaxConnections(Integer.parseInt(env("FHIR_DB_POOL", "20")));
      return p;
    }
    @Bean @Primary LocalContainerEntityManagerFactoryBean entityManagerFactory(
        DataSource ds, ConfigurableListableBeanFactory bf, FhirContext ctx, JpaStorageSettings s) {
      LocalContainerEntityManagerFactoryBean f = HapiEntityManagerFactoryUtil.newEntityManagerFactory(bf, ctx, s);
      f.setPersistenceUnitName("HAPI_PU");
      f.setDataSource(ds);
      Properties p = new Properties();
      p.put("hibernate.dialect", HapiFhirH2Dialect.class.getName());
      p.put("hibernate.hbm2ddl.auto", env("FHIR_DDL", "update"));
      p.put("hibernate.jdbc.batch_size", "20");
      p.put("hibernate.cache.use_query_cache", "false");
      p.put("hibernate.cache.use_second_level_cache", "false");
      p.put("hibernate.search.enabled", "false");
      p.put("hibernate.archive.scanner", "org.hibernate.boot.archive.scan.internal.DisabledScanner");
      f.setJpaProperties(p);
      return f;
    }
    @Bean @Primary JpaTransactionManager transactionManager(EntityManagerFactory emf) {
      return new JpaTransactionManager(emf);
    }
    @Bean RestfulServer restfulServer(
        FhirContext ctx, IFhirSystemDao<?, ?> sysDao, IJpaSystemProvider sys, ResourceProviderFactory rpf,
        JpaStorageSettings settings, ISearchParamRegistry spr, IValidationSupport vs,
        DatabaseBackedPagingProvider paging, BulkDataExportProvider export, ValueSetOperationProvider vsop) {
      RestfulServer s = new RestfulServer(ctx);
      s.registerProviders(rpf.createProviders());
      s.registerProviders(sys, export, vsop);
      JpaCapabilityStatementProvider cap = new JpaCapabilityStatementProvider(s, sysDao, settings, spr, vs);
      cap.setImplementationDescription("HAPI FHIR R4, Lazaret's target");
      s.setServerConformanceProvider(cap);
      s.setPagingProvider(paging);
      return s;
    }
  }

  /**
   * Answers 200 when the database answers, 503 otherwise. Jetty opens its port after the FHIR servlet has been
   * initialised, so the first 200 means that FHIR requests are served.
   */
  static final class Health extends HttpServlet {
    private final transient DataSource database;

    Health(DataSource database) {
      this.database = database;
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
      boolean ready;
      try (Connection c = database.getConnection()) {
        ready = c.isValid(1);
      } catch (SQLException e) {
        ready = false;
      }
      response.setStatus(ready ? 200 : 503);
      response.setContentType("text/plain");
      response.getWriter().println(ready ? "ready" : "database does not answer");
    }
  }

  public static void main(String[] args) throws Exception {
    long begin = System.nanoTime();
    AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext(Config.class);
    Server server = new Server(new QueuedThreadPool(Integer.parseInt(env("FHIR_THREADS", "40")), 4));
    ServerConnector connector = new ServerConnector(server);
    connector.setHost(env("FHIR_BIND", "0.0.0.0"));
    connector.setPort(Integer.parseInt(env("FHIR_PORT", "8080")));
    server.addConnector(connector);
    ServletContextHandler handler = new ServletContextHandler("/");
    ServletHolder fhir = new ServletHolder(context.getBean(RestfulServer.class));
    fhir.setInitOrder(1);
    handler.addServlet(fhir, "/fhir/*");
    handler.addServlet(new ServletHolder(new Health(context.getBean(DataSource.class))), "/health");
    server.setHandler(handler);
    server.start();
    // SIGTERM: first no new requests, then the jobs and the database, in that order.
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        server.stop();
      } catch (Exception e) {
        System.err.println("Jetty did not stop cleanly: " + e);
      }
      context.close();
      System.out.println("stopped");
    }));
    System.out.printf("ready after %.1f s%n", (System.nanoTime() - begin) / 1e9);
    if (env("FHIR_STOP_WHEN_READY", "").equals("1")) {
      System.exit(0);
    }
    server.join();
  }
}
