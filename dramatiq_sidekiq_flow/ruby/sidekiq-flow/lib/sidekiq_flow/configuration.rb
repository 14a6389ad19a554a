# frozen_string_literal: true

module SidekiqFlow::Companion
  class << self
    # config             as Sidekiq.configure_server yields it
    # heartbeat_timeout  seconds without a beat after which a worker is dead;
    #                    the same on Python's side (heartbeat_timeout there is
    #                    in milliseconds)
    # memory             {key_prefix: "swf:mem", ttl: 86_400}, false for none;
    #                    by default the gem's own configuration.memory
    # inherit            keys of a payload that a finished step hands on to the
    #                    next, beside INHERITED; "x-*" for all that begin so
    # fetch, promote     false leaves Sidekiq's own in place
    def configure(config, heartbeat_timeout: 60, memory: nil, inherit: [], fetch: true, promote: true)
      @memory = memory
      @inherited = inherited_pattern([*INHERITED, *inherit])
      config.server_middleware do |chain|
        chain.insert_after(gem::Middleware, Output)
        chain.remove(gem::Middleware)
        # Outermost: what any other middleware raises is this job's failure.
        chain.prepend(Outcome)
      end
      require "sidekiq/manager"
      Sidekiq::Manager.prepend(SignOff)
      Sidekiq::Processor.prepend(Processing)
      Sidekiq::Scheduled::Poller.prepend(PatientPoller)
      configure_client(config)
      gem.singleton_class.prepend(Prolongation)
      config[:flow_worker] = Worker.new(config, heartbeat_timeout)
      config[:fetch_class] = Fetch if fetch
      config[:scheduled_enq] = Promoter if promote
      config.death_handlers << ->(job, error) { log_death(config, job, error) }
      config.on(:startup) do
        check_middleware(config)
        ActiveJobEvents.subscribe
      end

      # ---- Registry: tells Python of this application's job classes, where
      # ---- sidekiq_flow_registry.rb was required before.
      SidekiqFlow::Registry.publish_with(config) if defined?(SidekiqFlow::Registry)
    end

    # For whatever pushes jobs and starts workflows. Requiring this file does it
    # in a process that is not a server, and +configure+ in one that is.
    def configure_client(config)
      config.client_middleware { |chain| chain.prepend(Pushes) }
    end

    # Tells the application's death handlers, this file's own among them.
    def bury_with_handlers(config, job, error)
      config[:death_handlers].each do |handler|
        handler.call(job, error)
      rescue => handler_error
        config.handle_exception(handler_error, {context: "Error calling death handler", job: job})
      end
    end

    private

    def log_death(config, job, error)
      run_id = run_id(job)
      return if run_id.nil?

      config.logger.error("Job #{job["jid"]} (#{(job["display_class"] || job["class"]).to_s[0, 255]}) of run #{run_id.to_s[0, 255]} is dead: #{error.class}. " \
        "The run waits; retrying the job resumes it.")
    end

    # Two that advance: the gem's would count each job down a second time.
    def check_middleware(config)
      chains = [config.server_middleware, *config.capsules.each_value.map(&:server_middleware)]
      return if chains.none? { |chain| chain.exists?(gem::Middleware) }

      raise "#{gem::Middleware} was added after #{name}.configure, which replaces it: call configure last"
    end
  end
end
