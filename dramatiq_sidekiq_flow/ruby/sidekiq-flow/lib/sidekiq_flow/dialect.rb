# frozen_string_literal: true

module SidekiqFlow::Companion
  # The keys that one of the gem's two names writes: it was renamed
  # sidekiq-sideline after 0.1.0, and its keys were renamed with it.
  Dialect = Struct.new(:name, :run_id, :callbacks, :memory_prefix) do
    # The dialect of the gem that this process has loaded.
    def self.current
      @current ||= DIALECTS.fetch(defined?(Sidekiq::Sideline) ? 1 : 0)
    end

    # Whether this process has loaded a gem.
    def self.loaded?
      defined?(Sidekiq::Sideline) || defined?(Sidekiq::Workflow) ? true : false
    end

    # The dialect of the gem that this process has not loaded.
    def self.other
      DIALECTS.find { |dialect| dialect != current }
    end

    # The module of the gem.
    def gem
      Sidekiq.const_get(name.capitalize)
    end

    def noop_class
      "Sidekiq::#{name.capitalize}::NoopWorker"
    end

    # Whether a job carries the keys of this dialect.
    def of?(job)
      job.key?(run_id) || job.key?(callbacks)
    end
  end

  DIALECTS = [
    Dialect.new("workflow", "workflow_run_id", "workflow_completion_callbacks", "swf:mem"),
    Dialect.new("sideline", "sideline_run_id", "sideline_completion_callbacks", "sl:mem")
  ].freeze
end
