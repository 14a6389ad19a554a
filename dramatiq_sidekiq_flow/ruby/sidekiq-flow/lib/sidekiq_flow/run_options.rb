# frozen_string_literal: true

module SidekiqFlow::Companion
  # What a run does besides its tree (Python's twin is workflow/run_options.py).
  class RunOptions
    # The longest name of a template, a tag or a key.
    MOST = 255

    # The options that name one job to call.
    CALLS = %i[on_failure on_complete].freeze

    attr_reader :tags, :template, :deadline, :unique_key

    # name -> job in wire form
    attr_reader :calls

    # deadline: seconds from the start, or a duration
    def initialize(tags: [], template: nil, deadline: nil, unique_key: nil, **calls)
      @tags = checked_tags(tags)
      @template = template && checked_name("template", template.to_s)
      @deadline = deadline && checked_deadline(deadline)
      @unique_key = unique_key && checked_name("unique_key", unique_key)
      @calls = calls.compact.to_h { |name, job| [name.to_s, checked_call(name, job)] }
    end

    # Whether a run is not what it should be without a record.
    def needed?
      !(@calls.empty? && @deadline.nil? && @unique_key.nil?)
    end

    # The fields of a record.
    def fields
      {
        "template" => @template, "tags" => @tags.empty? ? nil : JSON.generate(@tags), "deadline" => @deadline,
        "unique" => @unique_key
      }.compact
    end

    # The lists that the run is in, besides that of its state.
    def lists
      [*(["template:#{@template}"] if @template), *@tags.map { |tag| "tag:#{tag}" }]
    end

    private

    def checked_tags(tags)
      named = tags.is_a?(Array) ? tags.map { |tag| tag.is_a?(Symbol) ? tag.to_s : tag } : nil
      return named.uniq if named&.all? { |tag| tag.is_a?(String) && !tag.empty? }

      raise InvalidWorkflow, "tags takes an array of names: tags: [\"nightly\"], not #{tags.inspect[0, 100]}."
    end

    def checked_name(option, value)
      return value if value.is_a?(String) && value.length.between?(1, MOST)

      raise InvalidWorkflow, "#{option} takes a name of at most #{MOST} characters, not #{value.inspect[0, 50]}."
    end

    def checked_deadline(value)
      seconds = Lifetimes.seconds(value) || 0.0
      return seconds if seconds.positive? && seconds.finite?

      raise InvalidWorkflow, "deadline takes the seconds from the start, above 0, or a duration such as 2.hours, " \
        "not #{value.inspect[0, 50]}."
    end

    def checked_call(name, job)
      raise InvalidWorkflow, "There is no option #{name}." unless CALLS.include?(name)
      return Wire.of(job) if job.is_a?(Dialect.current.gem::Job)

      raise InvalidWorkflow, "#{name} takes one job: #{name}: #{Dialect.current.gem}::Job.new(...), " \
        "not #{job.inspect[0, 100]}."
    end
  end
end
