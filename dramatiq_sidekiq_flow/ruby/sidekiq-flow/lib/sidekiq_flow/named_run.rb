# frozen_string_literal: true

module SidekiqFlow::Companion
  # A run that SidekiqFlow.run starts.
  class NamedRun
    # node: of the gem
    def initialize(node, run_id, options)
      @node = node
      @tree = Wire.of(node)
      @run_id = run_id
      @options = options
      raise InvalidWorkflow, "The id of a run is 1 to 255 characters, not #{run_id.inspect[0, 300]}." unless valid?
    end

    # Returns the id of the run, or of the run that has its unique key.
    def start
      return start_with_gem unless Start.possible?

      outcome = Start.new(@tree, run_id: @run_id, options: @options, config: Sidekiq.default_configuration).call
      return @run_id unless outcome.is_a?(Replies::Taken)

      Sidekiq.logger.info("The run #{outcome.run_id} has the unique key #{@options.unique_key.inspect} and lives, " \
        "so the run #{@run_id} is not started.")
      outcome.run_id
    rescue InvalidNode => error
      raise InvalidWorkflow, error.message
    rescue WrongType, RedisClient::CommandError => error
      raise if @options.needed?

      Sidekiq.logger.warn("The run #{@run_id} starts without a record: #{error.class}: #{error.message}")
      start_with_gem
    end

    private

    # In tests without Redis, what needs a record is left out.
    def start_with_gem
      if @options.needed? && !Start.testing?
        raise InvalidWorkflow, "Callbacks, deadline and unique_key need the records of runs, which are off, or " \
          "cannot be written with the barriers of this application."
      end
      Dialect.current.gem::Workflow.new(@node, run_id: @run_id).run
      @run_id
    end

    def valid?
      @run_id.length.between?(1, 255)
    end
  end
end
