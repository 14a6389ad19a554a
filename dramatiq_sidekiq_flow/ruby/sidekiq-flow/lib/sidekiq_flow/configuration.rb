# frozen_string_literal: true

module SidekiqFlow::Companion
  class << self
    # Puts the companion in place, in a process that is a Sidekiq server.
    #
    # config             as Sidekiq.configure_server yields it
    # heartbeat_timeout  seconds without a heartbeat after which a worker is dead;
    #                    the same as in Python (where heartbeat_timeout is in
    #                    milliseconds)
    # memory             {key_prefix: "swf:mem", ttl: 86_400}, false for none;
    #                    by default the gem's own configuration.memory
    # inherit            keys of a payload that a finished step hands on to the
    #                    next, in addition to Inherited::KEYS; "x-*" for all keys
    #                    that begin so
    # fetch, promote     false keeps Sidekiq's own
    #
    # Raises Unsupported if this Sidekiq or this gem lacks a method that the
    # companion overrides.
    def configure(config, heartbeat_timeout: 60, memory: nil, inherit: [], fetch: true, promote: true)
      require "sidekiq/manager"
      Requirements.check(config.logger)
      Memory.option = memory
      Inherited.add(inherit)
      replace_middleware(config)
      override_sidekiq
      configure_client(config)
      Dialect.current.gem.singleton_class.prepend(Prolongation)
      config[:flow_worker] = Worker.new(config, heartbeat_timeout)
      config[:fetch_class] = Fetch if fetch
      config[:scheduled_enq] = Promoter if promote
      config.death_handlers << ->(job, error) { DeathHandlers.log(config, job, error) }
      config.on(:startup) { start(config) }

      # ---- Registry: publishes the job classes of this application for Python, if
      # ---- sidekiq_flow_registry.rb was required before.
      SidekiqFlow::Registry.publish_with(config) if defined?(SidekiqFlow::Registry)
    end

    # For processes that push jobs and start workflows: runs get records. Requiring the companion does
    # it in a process that is not a server, and +configure+ in a server.
    def configure_client(config)
      Starts.install
      config.client_middleware { |chain| chain.prepend(Pushes) }
    end

    private

    def replace_middleware(config)
      config.server_middleware do |chain|
        chain.insert_after(Dialect.current.gem::Middleware, Output)
        chain.remove(Dialect.current.gem::Middleware)
        # Outermost: an error of any other middleware is a failure of the job.
        chain.prepend(Outcome)
      end
    end

    def override_sidekiq
      Sidekiq::Manager.prepend(SignOff)
      Sidekiq::Processor.prepend(Processing)
      Sidekiq::Scheduled::Poller.prepend(PatientPoller)
    end

    def start(config)
      check_middleware(config)
      Memory.current # raises here, and not in the first job, if it cannot be read
      ActiveJobEvents.subscribe
      config.logger.info(Requirements.banner)
    end

    # With both middlewares, each job would be counted down twice.
    def check_middleware(config)
      middleware = Dialect.current.gem::Middleware
      chains = [config.server_middleware, *config.capsules.each_value.map(&:server_middleware)]
      return if chains.none? { |chain| chain.exists?(middleware) }

      raise "#{middleware} was added after #{name}.configure, which replaces it: call configure last"
    end
  end
end
