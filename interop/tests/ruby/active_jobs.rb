# frozen_string_literal: true

# Rails' jobs, as Rails has them without the rest of it.

require "active_job"
ActiveJob::Base.queue_adapter = :sidekiq
ActiveJob::Base.logger = nil

module Aj
  class Step < ActiveJob::Base
    queue_as :ruby
    retry_on ArgumentError, wait: ->(_executions) { 0.1 }, attempts: 3
    retry_on(IOError, wait: ->(_executions) { 0.1 }, attempts: 2) { nil }
    discard_on NotImplementedError, KeyError
    before_perform { throw :abort if arguments.first == "abort" }

    def perform(what, name = nil)
      number = Interop.try_number("#{name}:#{job_id}")
      Sidekiq.redis { |conn| conn.call("RPUSH", "aj", "#{name} #{what} #{number}") }
      case what
      when "retry once" then raise ArgumentError, "once" if number == 1
      when "retry for ever" then raise ArgumentError, "for ever"
      when "retry quietly" then raise IOError, "for ever"
      when "again" then retry_job(wait: 0.1) if number == 1
      when "discard" then raise KeyError, "not there"
      when "inner" then self.class.new("discard", "of #{name}").perform_now
      end
    end
  end
end
