# frozen_string_literal: true

module SidekiqFlow::Companion
  # What the companion needs of Sidekiq and of the gem, beyond their documented
  # interfaces. A version that it was not tested with is logged. If a method that it
  # overrides or calls is missing, the process does not start: it would lose jobs
  # silently.
  module Requirements
    # The versions that it was tested with. sidekiq-sideline has no releases.
    SIDEKIQ = Gem::Requirement.new(">= 7.3", "< 8.2")
    GEMS = {
      "workflow" => Gem::Requirement.new("~> 0.1.0"),
      "sideline" => Gem::Requirement.new(">= 0")
    }.freeze
    TESTED = "Sidekiq 7.3 to 8.1 and sidekiq-workflow 0.1"

    # Instance methods that are overridden or called, by module.
    METHODS = {
      "Sidekiq::JobRetry" => %i[global local process_retry redis],
      "Sidekiq::Manager" => %i[stop capsule],
      "Sidekiq::Processor" => %i[initialize],
      "Sidekiq::Scheduled::Poller" => %i[initial_wait],
      "Sidekiq::JobUtil" => %i[normalize_item],
      "Sidekiq::Middleware::Chain" => %i[insert_after remove prepend exists? invoke]
    }.freeze

    # The same of the gem: of its module, of its configuration, of its middleware.
    METHODS_OF_GEM = %i[configuration extend_ttl!].freeze
    METHODS_OF_CONFIGURATION = %i[memory callback_storage barrier_ttl].freeze
    METHODS_OF_MIDDLEWARE = %i[call config=].freeze

    class << self
      # Raises Unsupported if a method is missing, and logs a warning for a version
      # that was not tested.
      def check(logger)
        missing = missing_of_sidekiq + missing_of_gem
        raise Unsupported, refusal(missing) unless missing.empty?

        unknown = unknown_versions
        return if unknown.empty?

        logger.warn("sidekiq-flow #{SidekiqFlow::VERSION} was tested with #{TESTED}, not with " \
          "#{unknown.join(" and ")}. It starts, since all methods that it overrides are there.")
      end

      # One line for the log at boot: which versions run.
      def banner
        "sidekiq-flow #{SidekiqFlow::VERSION} with #{versions.join(", ")}"
      end

      private

      def missing_of_sidekiq
        METHODS.flat_map { |name, methods| missing_methods(name, methods) }
      end

      def missing_of_gem
        gem = gem_module
        return ["the gem sidekiq-workflow (require \"sidekiq/workflow\" before configure)"] if gem.nil?

        missing = unanswered(gem, METHODS_OF_GEM, gem.name)
        missing += unanswered(gem.configuration, METHODS_OF_CONFIGURATION, "#{gem}.configuration") if missing.empty?
        missing << "#{gem}::Schema" unless gem.const_defined?(:Schema)
        missing + missing_methods("#{gem}::Middleware", METHODS_OF_MIDDLEWARE)
      end

      def unanswered(object, methods, name)
        methods.reject { |method| object.respond_to?(method) }.map { |method| "#{name}.#{method}" }
      end

      def missing_methods(name, methods)
        return [name] unless Object.const_defined?(name)

        owner = Object.const_get(name)
        methods.reject { |method| owner.method_defined?(method) || owner.private_method_defined?(method) }
          .map { |method| "#{name}##{method}" }
      end

      def gem_module
        Dialect.current.gem
      rescue NameError
        nil
      end

      def refusal(missing)
        "sidekiq-flow #{SidekiqFlow::VERSION} cannot work with #{versions.join(", ")}: " \
          "missing #{missing.join(", ")}. It was tested with #{TESTED}. " \
          "Update sidekiq-flow, or use one of these versions."
      end

      def unknown_versions
        unknown = []
        unknown << "Sidekiq #{Sidekiq::VERSION}" unless known?(SIDEKIQ, Sidekiq::VERSION)
        version = gem_version
        unknown << "#{gem_name} #{version}" if version && !known?(GEMS.fetch(Dialect.current.name), version)
        unknown
      end

      # A prerelease counts as the release that it precedes.
      def known?(requirement, version)
        requirement.satisfied_by?(Gem::Version.new(version).release)
      end

      def versions
        ["Sidekiq #{Sidekiq::VERSION}", "#{gem_name} #{gem_version || "(unknown version)"}"]
      end

      def gem_name
        "sidekiq-#{Dialect.current.name}"
      end

      # From its constant, else from RubyGems; nil if neither knows it.
      def gem_version
        gem = gem_module
        return gem::VERSION if gem&.const_defined?(:VERSION, false)

        Gem.loaded_specs[gem_name]&.version&.to_s
      end
    end
  end
end
