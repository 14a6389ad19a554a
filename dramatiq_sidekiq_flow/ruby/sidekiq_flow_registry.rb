# frozen_string_literal: true

# Tells Python what Ruby's job classes are: their queue, retries and other
# sidekiq_options. Copy this file into an initializer, after your jobs can be
# loaded:
#
#   require "sidekiq_flow_registry"
#   Sidekiq.configure_server { |config| SidekiqFlow::Registry.publish_with(config) }
#
# Python then advances a workflow onto a Ruby class with the class's own options.
# It is one hash, `swf:registry:ruby`, class name -> JSON, which lives three days
# after the last process has refreshed it.

require "json"
require "sidekiq"

module SidekiqFlow
  module Registry
    KEY = "swf:registry:ruby"
    TTL = 3 * 86_400
    EVERY = 600

    module_function

    # Publish when the server starts, and again every ten minutes.
    # classes: what to publish; all loaded job classes unless given.
    def publish_with(config, classes: nil)
      config.on(:startup) { publish(classes: classes) }
      last = now
      config.on(:beat) do
        next if now - last < EVERY

        last = now
        publish(classes: classes)
      end
    end

    # Write the hash now.
    def publish(classes: nil)
      entries = entries(classes)
      return if entries.empty?

      Sidekiq.redis do |conn|
        conn.call("HSET", KEY, *entries.flat_map { |name, options| [name, JSON.generate(options)] })
        conn.call("EXPIRE", KEY, TTL)
      end
    end

    # Write the file form, for those who check it in.
    def write(path, classes: nil)
      File.write(path, JSON.pretty_generate({"ruby" => entries(classes)}) + "\n")
    end

    def entries(classes = nil)
      (classes || loaded).to_h { |klass| [klass.name, klass.get_sidekiq_options.transform_keys(&:to_s)] }.sort.to_h
    end

    # Stubs of Python's actors are Ruby classes, too, and say the same of them.
    def loaded
      Rails.application.eager_load! if defined?(Rails) && Rails.respond_to?(:application) && Rails.application
      ObjectSpace.each_object(Class).select { |klass| klass < Sidekiq::Job && klass.name }
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end
end
