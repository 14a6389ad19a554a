# frozen_string_literal: true

# Publishes the job classes of a Ruby application for Python: their queue, retries
# and other sidekiq_options. In an initializer, where your jobs can be loaded:
#
#   require "sidekiq_flow/registry"
#   Sidekiq.configure_server { |config| SidekiqFlow::Registry.publish_with(config) }
#
# (or with the file to copy, require_relative "../../lib/sidekiq_flow_registry").
#
# Python then advances a workflow onto a Ruby class with the options of that class.
# They are one hash, `swf:registry:ruby`, class name -> JSON, which expires three
# days after a process has last refreshed it. Also, a job of a Python actor that
# this process takes by mistake fails with a clear error, where the gem's no-op
# would skip its work. For a file to check in instead of the hash:
#
#   bin/rails runner 'SidekiqFlow::Registry.write("config/sidekiq_flow.json")'

require "json"
require "sidekiq"
require_relative "carriers"

module SidekiqFlow
  module Registry
    KEY = "swf:registry:ruby"
    TTL = 3 * 86_400
    EVERY = 600

    module_function

    # Publishes when the server starts, and again every ten minutes; and refuses jobs
    # of Python actors.
    #
    # classes  the job classes to publish; by default all that are loaded
    def publish_with(config, classes: nil)
      due = now
      refresh = lambda do
        next if now < due

        publish(classes: classes)
        due = now + EVERY
      rescue => error
        # The next heartbeat tries again. Raised at startup, it would stop the server.
        config.logger.warn { "The job classes could not be published for Python: #{error.class}: #{error.message}" }
      end
      config.on(:startup, &refresh)
      config.on(:beat, &refresh)
      config.server_middleware { |chain| chain.add Carriers }
    end

    # Writes the hash now.
    def publish(classes: nil)
      entries = entries(classes)
      return if entries.empty?

      Sidekiq.redis do |conn|
        conn.multi do |transaction|
          transaction.call("HSET", KEY, *entries.flat_map { |name, options| [name, JSON.generate(options)] })
          transaction.call("EXPIRE", KEY, TTL)
        end
      end
    end

    # Writes the file to check in. The part of it that Python writes is kept.
    def write(path, classes: nil)
      file = File.exist?(path) ? JSON.parse(File.read(path)) : {}
      file["ruby"] = entries(classes)
      File.write(path, JSON.pretty_generate(file.sort.to_h) + "\n")
    end

    def entries(classes = nil)
      (classes || loaded).to_h { |klass| [klass.name, options(klass)] }.sort.to_h
    end

    # The options as Sidekiq::Client writes them into a job, without those that a job
    # cannot carry (a connection pool is an option, too).
    def options(klass)
      options = klass.get_sidekiq_options.transform_keys(&:to_s)
      options["retry_for"] = options["retry_for"].to_i if options["retry_for"]
      options.select { |_, value| json?(value) }
    end

    def json?(value)
      case value
      when String, Symbol, Integer, Float, true, false then true
      when Array then value.all? { |item| json?(item) }
      when Hash then value.each_value.all? { |item| json?(item) }
      else false
      end
    end

    # All loaded job classes. Stubs of Python actors are among them, with the same
    # options.
    def loaded
      Rails.application.eager_load! if defined?(Rails) && Rails.respond_to?(:application) && Rails.application
      ObjectSpace.each_object(Class).select do |klass|
        # After a reload in Rails, the old class may still exist.
        klass < Sidekiq::Job && klass.name && !klass.name.start_with?("Sidekiq::") &&
          Object.const_defined?(klass.name) && Object.const_get(klass.name).equal?(klass)
      end
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end
end
